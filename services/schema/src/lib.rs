//! Compiles the JSON Schemas of event types within limits, and validates payloads in bounded time.
//!
//! The author of a schema does not run the server, and a publisher need not be the author of the
//! schema, so neither may slow down the others. Schemas are surveyed before they are compiled
//! ([`survey`]), patterns are matched in linear time, and validation counts its steps and stops
//! when there are too many ([`metered`]). Nothing is ever fetched. The crate must never do IO, and
//! knows no wire types.

mod describe;
mod fault;
mod metered;
mod survey;
#[cfg(test)]
mod tests;

use std::{fmt, thread};

use jsonschema::{PatternOptions, Validator};
use outrider_model::limits;
use serde_json::Value;

pub use fault::{Fault, Violation};
use metered::{Effort, Metered};

/// Maximum memory of one compiled pattern, in bytes. It bounds the time of a match per byte of
/// text.
const PATTERN_BYTES: usize = 64 * 1_024;
/// Maximum memory of the state cache of one pattern, in bytes per thread.
const PATTERN_CACHE_BYTES: usize = 256 * 1_024;
/// Stack size of a thread that compiles, or that validates at length. Only the used part takes
/// memory.
const LARGE_STACK_BYTES: usize = 64 * 1_024 * 1_024;

/// The result of a validation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Validation {
    /// The payload fits the schema.
    Fits,
    /// The payload does not fit. Contains the first violations, at least one and at most
    /// [`limits::SCHEMA_VIOLATIONS`].
    Violates(Vec<Violation>),
    /// The validation exceeded the permitted steps or depth.
    Undecided,
}

/// A compiled schema.
pub struct Schema {
    validator: Validator<Metered>,
    /// The cost of reading one byte of text, in steps.
    text_cost: metered::TextCost,
}

impl fmt::Debug for Schema {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Schema").field("text_cost", &self.text_cost).finish_non_exhaustive()
    }
}

impl Schema {
    /// Compiles the text of a schema by draft 2020-12, or by the draft that its `$schema` names. It
    /// may have at most 64 KiB ([`limits::SCHEMA_BYTES`]), and must be within the limits of
    /// [`survey`]. Takes up to about 100 ms and starts a thread, so it must not be called from an
    /// asynchronous task.
    ///
    /// # Errors
    /// The first fault of the schema.
    pub fn compile(text: &str) -> Result<Self, Fault> {
        if text.len() > limits::SCHEMA_BYTES {
            return Err(Fault::at(
                "",
                format!("has {} bytes; at most {} are allowed", text.len(), limits::SCHEMA_BYTES),
            ));
        }
        let schema: Value = serde_json::from_str(text)
            .map_err(|error| Fault::at("", format!("must be JSON: {error}")))?;
        on_large_stack(|| compile(&schema))
            .unwrap_or_else(|| Err(Fault::at("", "cannot be compiled")))
    }

    /// Validates a JSON payload with little effort. Returns `Undecided` if it takes more than a few
    /// milliseconds.
    #[must_use]
    pub fn validate_briefly(&self, payload: &[u8]) -> Validation {
        self.validate(payload, Effort::BRIEF)
    }

    /// Validates a JSON payload in at most this many steps. A step is a look at a value or at a few
    /// bytes of text; a million take a tenth to half a second. Uses a thread of its own, so it must
    /// not be called from an asynchronous task.
    #[must_use]
    pub fn validate_at_length(&self, payload: &[u8], steps: u64) -> Validation {
        let effort = Effort { steps, stack_bytes: LARGE_STACK_BYTES / 2 };
        on_large_stack(|| self.validate(payload, effort)).unwrap_or(Validation::Undecided)
    }

    fn validate(&self, payload: &[u8], effort: Effort) -> Validation {
        let value = match serde_json::from_slice::<Value>(payload) {
            Ok(value) => value,
            // Its syntax was checked, so it contains a number beyond 64-bit floating point, which
            // only text can represent.
            Err(_) => {
                let description = "has a number that is too large to be validated".to_owned();
                return Validation::Violates(vec![Violation {
                    pointer: String::new(),
                    description,
                    keyword: String::new(),
                }]);
            }
        };
        let violations = metered::run(&value, effort, self.text_cost, |root| {
            self.validator
                .iter_errors(root)
                .take(limits::SCHEMA_VIOLATIONS)
                .map(|error| describe::violation(&error))
                .collect()
        });
        match violations {
            Some(violations) if Vec::is_empty(&violations) => Validation::Fits,
            Some(violations) => Validation::Violates(violations),
            None => Validation::Undecided,
        }
    }
}

fn compile(schema: &Value) -> Result<Schema, Fault> {
    let survey = survey::survey(schema)?;
    let patterns =
        PatternOptions::regex().size_limit(PATTERN_BYTES).dfa_size_limit(PATTERN_CACHE_BYTES);
    let options = jsonschema::options_for::<Metered>().offline().with_pattern_options(patterns);
    let validator = options.build(schema).map_err(|error| describe::fault(&error))?;
    Ok(Schema { validator, text_cost: survey.text_cost })
}

/// Runs `work` on a thread with a large stack. Returns `None` if the thread cannot be started, or
/// if `work` panics.
fn on_large_stack<T: Send>(work: impl FnOnce() -> T + Send) -> Option<T> {
    thread::scope(|scope| {
        let thread = thread::Builder::new().name("schema".to_owned()).stack_size(LARGE_STACK_BYTES);
        thread.spawn_scoped(scope, work).ok()?.join().ok()
    })
}
