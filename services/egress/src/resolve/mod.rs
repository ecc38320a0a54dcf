//! Resolves names to addresses.

mod asker;
mod files;
mod lookup;
mod system;

pub use self::{
    lookup::{NoAddress, Resolve},
    system::SystemResolver,
};
