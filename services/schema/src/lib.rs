//! JSON Schemas of event types: compiled within limits, and payloads validated by them in bounded
//! time.
//!
//! Who writes a schema is not who runs the server, and who publishes need not be who wrote the
//! schema: neither may make the other's part slow. Schemas are surveyed before they are compiled
//! ([`survey`]), patterns are matched in linear time, and validation counts its steps and ends when
//! there are too many ([`metered`]). Nothing is ever fetched. It must never do IO; it knows no wire
//! types.

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

/// The memory of one compiled pattern, in bytes: what bounds the time of a match for each byte of
/// text.
const PATTERN_BYTES: usize = 64 * 1_024;
/// The memory in which the matcher of one pattern remembers its states, in bytes for each thread.
const PATTERN_CACHE_BYTES: usize = 256 * 1_024;
/// The stack of a thread that compiles, or that validates at length. Only what is used of it is
/// memory.
const LARGE_STACK_BYTES: usize = 64 * 1_024 * 1_024;

/// What validation says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Validation {
    /// It fits.
    Fits,
    /// It does not; the first violations, at most [`limits::SCHEMA_VIOLATIONS`] and at least one.
    Violates(Vec<Violation>),
    /// It was not decided within the steps or the depth that are allowed.
    Undecided,
}

/// A compiled schema.
pub struct Schema {
    validator: Validator<Metered>,
    /// What reading one byte of text costs, in steps.
    text_cost: metered::TextCost,
}

impl fmt::Debug for Schema {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Schema").field("text_cost", &self.text_cost).finish_non_exhaustive()
    }
}

impl Schema {
    /// Compiles the text of a schema: by draft 2020-12, or the draft that its `$schema` names. At
    /// most 64 KiB ([`limits::SCHEMA_BYTES`]), and within the limits of [`survey`]. It takes up to
    /// some 100 ms, and starts a thread for its stack: not for an asynchronous task.
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

    /// Validates a payload, which is JSON, with little effort: `Undecided` when it takes more than
    /// a few milliseconds.
    #[must_use]
    pub fn validate_briefly(&self, payload: &[u8]) -> Validation {
        self.validate(payload, Effort::BRIEF)
    }

    /// Validates a payload, which is JSON, in at most so many steps: a step is a look at a value or
    /// at some bytes of text, and a million take a tenth to half a second. On a thread of its own:
    /// not for an asynchronous task.
    #[must_use]
    pub fn validate_at_length(&self, payload: &[u8], steps: u64) -> Validation {
        let effort = Effort { steps, stack_bytes: LARGE_STACK_BYTES / 2 };
        on_large_stack(|| self.validate(payload, effort)).unwrap_or(Validation::Undecided)
    }

    fn validate(&self, payload: &[u8], effort: Effort) -> Validation {
        let value = match serde_json::from_slice::<Value>(payload) {
            Ok(value) => value,
            // Its syntax was checked: it holds a number beyond 64-bit floating point, which the
            // text alone can carry.
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

/// The result of `work` on a thread with a large stack; none when there is no such thread, or
/// `work` panicked.
fn on_large_stack<T: Send>(work: impl FnOnce() -> T + Send) -> Option<T> {
    thread::scope(|scope| {
        let thread = thread::Builder::new().name("schema".to_owned()).stack_size(LARGE_STACK_BYTES);
        thread.spawn_scoped(scope, work).ok()?.join().ok()
    })
}
