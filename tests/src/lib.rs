//! The test kit: what tests of several crates share. Nothing here is part of the program.

pub mod crash;
pub mod flips;
pub mod golden;
pub mod packs;
pub mod sim;
