//! The traffic: which flows and sections come, change and go, by the seed.
