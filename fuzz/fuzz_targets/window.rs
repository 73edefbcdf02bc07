#![no_main]

ssyncp_fuzz::target!("window");
