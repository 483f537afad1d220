//! vecdrift
fn main() {}
