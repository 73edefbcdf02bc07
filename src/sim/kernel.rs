//! What a node's kernel is to its engine: a table of connections that outlives the daemon, tells of changes by a queue of bounded length, and can be dumped.
