//! (Room under construction.)
