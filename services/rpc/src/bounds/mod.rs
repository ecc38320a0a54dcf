//! How many entries the lists and maps of a public request may have: the option `max_items` of their fields.
//!
//! The transcoder of REST enforces it while it reads JSON, and [`Bounded`] on the bytes of protobuf before anything of them is decoded:
//! an empty message in a list takes two bytes on the wire and hundreds in memory.

mod body;
mod scan;
#[cfg(test)]
mod tests;

use std::{collections::HashMap, sync::LazyLock};

use outrider_proto::DESCRIPTORS;
use prost_reflect::{FieldDescriptor, Kind, MessageDescriptor, Value};

pub use body::{Bounded, Weight};

use crate::methods;

/// Entries of a list or map without the option, such as the paths of a field mask.
const OTHERS: u32 = 256;
/// Lists and maps of one message.
const LISTS: usize = 4;

/// The options of all fields that have one, by their full names: options are decoded at every look.
static MAX_ITEMS: LazyLock<HashMap<String, u32>> = LazyLock::new(|| {
    let Some(extension) = DESCRIPTORS.get_extension_by_name("outrider.options.v1.max_items") else { return HashMap::new() };
    let fields = DESCRIPTORS.all_messages().flat_map(|message| message.fields().collect::<Vec<_>>());
    let bounded = fields.filter_map(|field| match field.options().get_extension(&extension).as_ref() {
        Value::U32(most @ 1..) => Some((field.full_name().to_owned(), *most)),
        _ => None,
    });
    bounded.collect()
});

static SHAPES: LazyLock<Shapes> = LazyLock::new(Shapes::of_requests);

/// How many entries a list or map of a request may have.
#[must_use]
pub fn max_items(field: &FieldDescriptor) -> u32 {
    option(field).unwrap_or(OTHERS)
}

/// What the option of a field says, if it has one.
#[must_use]
pub fn option(field: &FieldDescriptor) -> Option<u32> {
    MAX_ITEMS.get(field.full_name()).copied()
}

/// What is wrong with a field that has more.
#[must_use]
pub fn too_many(most: u32) -> String {
    format!("must have at most {most} entries")
}

/// The shapes of all messages that public requests can hold.
#[derive(Default)]
struct Shapes {
    all: Vec<Shape>,
    by_message: HashMap<String, usize>,
    by_path: HashMap<String, usize>,
}

/// The fields of a message in which entries are counted, or looked for.
#[derive(Default)]
struct Shape {
    fields: Vec<Field>,
}

struct Field {
    number: u32,
    name: String,
    holds: Holds,
}

#[derive(Clone, Copy)]
enum Holds {
    /// One message.
    Message(usize),
    /// A list of messages.
    Messages(usize, Counted),
    /// A list of scalars of variable length, which may be packed.
    Numbers(Counted),
    /// A map, or a list of anything else.
    Items(Counted),
}

/// Which counter, and up to what.
#[derive(Clone, Copy)]
struct Counted {
    counter: usize,
    most: u32,
}

impl Shapes {
    fn of_requests() -> Self {
        let mut shapes = Self::default();
        for service in methods::public_services() {
            for method in service.methods() {
                let shape = shapes.of(&method.input());
                shapes.by_path.insert(methods::path(&method), shape);
            }
        }
        shapes
    }

    fn of(&mut self, message: &MessageDescriptor) -> usize {
        if let Some(known) = self.by_message.get(message.full_name()) {
            return *known;
        }
        // Its place is taken before its fields are seen: they may lead back to it.
        let index = self.all.len();
        self.all.push(Shape::default());
        self.by_message.insert(message.full_name().to_owned(), index);
        let (mut fields, mut counters) = (Vec::new(), 0..LISTS);
        for field in message.fields() {
            let mut counted = || {
                let counter = counters.next().unwrap_or(LISTS - 1);
                Counted { counter, most: max_items(&field) }
            };
            let holds = match field.kind() {
                _ if field.is_map() => Holds::Items(counted()),
                Kind::Message(inner) if field.is_list() => Holds::Messages(self.of(&inner), counted()),
                Kind::Message(inner) => Holds::Message(self.of(&inner)),
                Kind::String | Kind::Bytes if field.is_list() => Holds::Items(counted()),
                _ if field.is_list() => Holds::Numbers(counted()),
                _ => continue,
            };
            fields.push(Field { number: field.number(), name: field.name().to_owned(), holds });
        }
        self.all[index].fields = fields;
        index
    }
}
