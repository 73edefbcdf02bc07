//! One node: an engine, its kernel, its clock, and the turn that the daemon's loop does.
