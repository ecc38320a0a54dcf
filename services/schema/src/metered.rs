//! Validation that counts its steps. The library walks over schema and instance without a limit,
//! which a recursive schema can make exponential, and it cannot be stopped. So it gets an instance
//! that counts how often it is read. After too many reads, or if the stack has grown too deep, the
//! instance ends the walk by unwinding to its beginning.

use std::{
    borrow::Cow,
    cell::Cell,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    ptr,
};

use jsonschema::{
    JsonType,
    json::{Array, Json, Node, NodeIdentity, Object, cmp, unique},
};
use serde_json::{Map, Number, Value};

/// The permitted effort.
#[derive(Debug, Clone, Copy)]
pub struct Effort {
    /// Maximum number of looks at the instance.
    pub steps: u64,
    /// Maximum growth of the stack.
    pub stack_bytes: usize,
}

impl Effort {
    /// The effort that an asynchronous task may make between two yields: a few milliseconds at
    /// most, and a part of the usual stack of 2 MiB.
    pub const BRIEF: Self = Self { steps: 20_000, stack_bytes: 512 * 1_024 };
}

/// Steps per byte of text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TextCost {
    /// For a string. More if patterns are matched.
    pub value: u64,
    /// For the name of a property. More if several patterns are matched with it.
    pub name: u64,
}

/// Ends the walk. It is not a panic, so no panic hook runs.
struct Stopped;

struct Meter {
    left: Cell<u64>,
    /// Approximate position of the stack at the beginning.
    base: usize,
    effort: Effort,
    text: TextCost,
}

impl Meter {
    fn charge(&self, steps: u64) {
        let left = self.left.get();
        if left < steps || stack().abs_diff(self.base) > self.effort.stack_bytes {
            resume_unwind(Box::new(Stopped));
        }
        self.left.set(left - steps);
    }

    fn charge_text(&self, bytes: usize, cost: u64) {
        // Eight bytes that are not matched with a pattern cost one step.
        let bytes = bytes as u64;
        self.charge(1 + bytes / 8 + bytes.saturating_mul(cost));
    }
}

/// Returns the approximate position of the stack.
fn stack() -> usize {
    let here = 0_u8;
    ptr::from_ref(&here).addr()
}

/// Runs `walk` over the instance. Returns `None` if that takes more than the effort.
///
/// # Panics Panics if `walk` does.
pub fn run<T>(
    instance: &Value,
    effort: Effort,
    text: TextCost,
    walk: impl FnOnce(MeteredValue<'_>) -> T,
) -> Option<T> {
    let meter = Meter { left: Cell::new(effort.steps), base: stack(), effort, text };
    // State that unwinding leaves half done belongs to the walk, and is dropped with it.
    match catch_unwind(AssertUnwindSafe(|| {
        walk(MeteredValue { value: instance, meter: Some(&meter) })
    })) {
        Ok(result) => Some(result),
        Err(stopped) if (*stopped).is::<Stopped>() => None,
        Err(panic) => resume_unwind(panic),
    }
}

/// The JSON representation that the library reads.
pub struct Metered;

/// A value of the instance.
#[derive(Clone, Copy)]
pub struct MeteredValue<'a> {
    value: &'a Value,
    /// `None` for names of properties, which are charged when their object is walked.
    meter: Option<&'a Meter>,
}

impl<'a> MeteredValue<'a> {
    /// Returns the value, and charges one step.
    fn look(&self) -> &'a Value {
        self.charge(1);
        self.value
    }

    fn charge(&self, steps: u64) {
        if let Some(meter) = self.meter {
            meter.charge(steps);
        }
    }
}

impl Json for Metered {
    type Node<'a> = MeteredValue<'a>;
    type PreparedKey = String;
    type StringBuffer = Value;

    fn prepare_key(key: &str) -> String {
        key.to_owned()
    }

    fn with_string_node<T>(
        buffer: &mut Value,
        string: &str,
        f: impl FnOnce(MeteredValue<'_>) -> T,
    ) -> T {
        *buffer = Value::String(string.to_owned());
        f(MeteredValue { value: buffer, meter: None })
    }
}

/// Replaces every value in errors, so that errors never contain payload.
static HIDDEN: Value = Value::Null;

impl<'a> Node<'a, Metered> for MeteredValue<'a> {
    type Object = Members<'a>;
    type Array = Elements<'a>;
    type Number = &'a Number;

    fn as_object(&self) -> Option<Members<'a>> {
        self.look().as_object().map(|members| Members { members, meter: self.meter })
    }

    fn as_array(&self) -> Option<Elements<'a>> {
        self.look().as_array().map(|elements| Elements { elements, meter: self.meter })
    }

    fn as_string(&self) -> Option<Cow<'a, str>> {
        let text = self.value.as_str();
        match (self.meter, text) {
            (Some(meter), Some(text)) => meter.charge_text(text.len(), meter.text.value),
            _ => self.charge(1),
        }
        text.map(Cow::Borrowed)
    }

    fn as_number(&self) -> Option<&'a Number> {
        self.look().as_number()
    }

    fn as_boolean(&self) -> Option<bool> {
        self.look().as_bool()
    }

    fn is_null(&self) -> bool {
        self.look().is_null()
    }

    fn json_type(&self) -> JsonType {
        match self.look() {
            Value::Null => JsonType::Null,
            Value::Bool(_) => JsonType::Boolean,
            Value::Number(_) => JsonType::Number,
            Value::String(_) => JsonType::String,
            Value::Array(_) => JsonType::Array,
            Value::Object(_) => JsonType::Object,
        }
    }

    fn string_length(&self) -> Option<u64> {
        let text = self.value.as_str()?;
        self.charge(1 + text.len() as u64 / 64);
        Some(text.chars().count() as u64)
    }

    fn equals_value(&self, expected: &Value) -> bool {
        // Only parts that both sides have are compared.
        let alike = matches!(
            (self.value, expected),
            (Value::Array(_), Value::Array(_)) | (Value::Object(_), Value::Object(_))
        );
        self.charge(if alike { size(expected) } else { 1 });
        cmp::equal(self.value, expected)
    }

    fn to_value(&self) -> Cow<'a, Value> {
        Cow::Borrowed(&HIDDEN)
    }

    fn identity(&self) -> Option<NodeIdentity> {
        self.charge(1);
        Some(NodeIdentity::new(ptr::from_ref(self.value).addr()))
    }
}

/// Returns the approximate cost of reading a value completely, in steps.
fn size(value: &Value) -> u64 {
    let text = |text: &str| 1 + text.len() as u64 / 64;
    match value {
        Value::Array(elements) => 1 + elements.iter().map(size).sum::<u64>(),
        Value::Object(members) => {
            1 + members.iter().map(|(name, value)| text(name) + size(value)).sum::<u64>()
        }
        Value::String(value) => text(value),
        _ => 1,
    }
}

/// An object.
pub struct Members<'a> {
    members: &'a Map<String, Value>,
    meter: Option<&'a Meter>,
}

impl<'a> Object<'a, Metered> for Members<'a> {
    type Node = MeteredValue<'a>;
    type MemberName = &'a str;
    type MembersIter = MembersIter<'a>;

    fn len(&self) -> usize {
        self.members.len()
    }

    fn get(&self, key: &String) -> Option<MeteredValue<'a>> {
        if let Some(meter) = self.meter {
            meter.charge(1);
        }
        self.members.get(key).map(|value| MeteredValue { value, meter: self.meter })
    }

    fn members(&self) -> MembersIter<'a> {
        MembersIter { members: self.members.iter(), meter: self.meter }
    }
}

/// Iterates over the names and values of an object, and charges each.
pub struct MembersIter<'a> {
    members: serde_json::map::Iter<'a>,
    meter: Option<&'a Meter>,
}

impl<'a> Iterator for MembersIter<'a> {
    type Item = (&'a str, MeteredValue<'a>);

    fn next(&mut self) -> Option<Self::Item> {
        let (name, value) = self.members.next()?;
        if let Some(meter) = self.meter {
            meter.charge_text(name.len(), meter.text.name);
        }
        Some((name, MeteredValue { value, meter: self.meter }))
    }
}

/// An array.
pub struct Elements<'a> {
    elements: &'a [Value],
    meter: Option<&'a Meter>,
}

impl<'a> Array<'a, Metered> for Elements<'a> {
    type Node = MeteredValue<'a>;
    type ElementsIter = ElementsIter<'a>;

    fn len(&self) -> usize {
        self.elements.len()
    }

    fn elements(&self) -> ElementsIter<'a> {
        ElementsIter { elements: self.elements.iter(), meter: self.meter }
    }

    fn is_unique(&self) -> bool {
        if let Some(meter) = self.meter {
            // Every element is hashed, and few are compared with each other.
            meter.charge(self.elements.iter().map(size).sum::<u64>().saturating_mul(4));
        }
        unique::is_unique(self.elements)
    }
}

/// Iterates over the elements of an array, and charges each.
pub struct ElementsIter<'a> {
    elements: std::slice::Iter<'a, Value>,
    meter: Option<&'a Meter>,
}

impl<'a> Iterator for ElementsIter<'a> {
    type Item = MeteredValue<'a>;

    fn next(&mut self) -> Option<MeteredValue<'a>> {
        let value = self.elements.next()?;
        if let Some(meter) = self.meter {
            meter.charge(1);
        }
        Some(MeteredValue { value, meter: self.meter })
    }
}
