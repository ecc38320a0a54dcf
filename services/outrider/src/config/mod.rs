//! Loads the configuration: defaults, then the file, then the environment, then flags. Every key
//! has a default, and unknown keys are errors.

mod aggregate;
mod describe;
mod error;
mod explain;
mod keys;
mod layers;
mod load;
mod secret_files;
mod sections;
mod sources;
mod validate;
mod without_effect;

pub use self::{
    aggregate::Config,
    describe::describe,
    explain::Explained,
    load::changed_keys,
    sections::{Internal, Secrets},
    sources::Sources,
};
#[cfg(test)]
pub use self::{
    aggregate::SECTIONS,
    keys::{leaves, read_from_files, variable},
    without_effect::CONDITIONS,
};
