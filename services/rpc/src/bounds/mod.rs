//! How many entries the lists and maps of a public request may have: the option `max_items` of
//! their fields.
//!
//! The transcoder of REST enforces it while it reads JSON, and [`Bounded`] on the bytes of protobuf
//! before anything of them is decoded: an empty message in a list takes two bytes on the wire and
//! hundreds in memory.

mod body;
mod scan;
#[cfg(test)]
mod tests;

use std::{collections::HashMap, ops::Range, sync::LazyLock};

use outrider_proto::DESCRIPTORS;
use prost_reflect::{FieldDescriptor, Kind, MessageDescriptor, Value};

pub use body::{Bounded, Weight};
pub(crate) use scan::MALFORMED;

use crate::methods;

/// Entries of a list or map without the option, such as the paths of a field mask.
const OTHERS: u32 = 256;
/// Lists and maps that are counted apart in one message and the single messages within it.
const COUNTERS: usize = 8;

/// The options of all fields that have one, by their full names: options are decoded at every look.
static MAX_ITEMS: LazyLock<HashMap<String, u32>> = LazyLock::new(|| {
    let Some(extension) = DESCRIPTORS.get_extension_by_name("outrider.options.v1.max_items") else {
        return HashMap::new();
    };
    let fields =
        DESCRIPTORS.all_messages().flat_map(|message| message.fields().collect::<Vec<_>>());
    let bounded =
        fields.filter_map(|field| match field.options().get_extension(&extension).as_ref() {
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
    /// Of messages that are decoded for themselves: requests and entries of lists.
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
    /// The counters of the other members of its oneof, which are dropped when this one comes.
    clears: Vec<Range<usize>>,
}

#[derive(Clone, Copy)]
enum Holds {
    /// Nothing that is counted.
    Nothing,
    /// One message. When it comes again, it is merged with what came before.
    Message(usize),
    /// A list of messages.
    Messages(usize, Counted),
    /// A list of scalars of variable length, which may be packed.
    Numbers(Counted),
    /// A map, or a list of anything else.
    Items(Counted),
}

impl Holds {
    /// Whether the field may come with this wire type. Decoding refuses most others too, but takes
    /// any for a map, and reads on from another place than who believes the type.
    fn takes(self, wire_type: u64) -> bool {
        match self {
            Self::Nothing => true,
            Self::Numbers(_) => matches!(wire_type, VARINT | DELIMITED),
            Self::Message(_) | Self::Messages(..) | Self::Items(_) => wire_type == DELIMITED,
        }
    }
}

/// Wire types, by their numbers.
const VARINT: u64 = 0;
const EIGHT_BYTES: u64 = 1;
const DELIMITED: u64 = 2;
const FOUR_BYTES: u64 = 5;

/// Which counter, and up to what.
#[derive(Clone, Copy)]
struct Counted {
    counter: usize,
    most: u32,
}

/// A message that is decoded for itself, while its shape is made. Single messages within it have
/// shapes of their own, at each place where they occur: the lists inside of a message that comes
/// twice add up, so that each list at each place has its own counter.
#[derive(Default)]
struct Counting {
    /// Those that have a list.
    counters: usize,
    /// The messages around the place, by name.
    around: Vec<(String, usize)>,
}

impl Counting {
    fn counted(&mut self, field: &FieldDescriptor) -> Counted {
        let counter = self.counters.min(COUNTERS - 1);
        self.counters += 1;
        Counted { counter, most: max_items(field) }
    }
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

    /// Of a message that is decoded for itself.
    fn of(&mut self, message: &MessageDescriptor) -> usize {
        if let Some(known) = self.by_message.get(message.full_name()) {
            return *known;
        }
        // Its place is known before its fields are seen: they may lead back to it.
        self.by_message.insert(message.full_name().to_owned(), self.all.len());
        self.within(message, &mut Counting::default())
    }

    fn within(&mut self, message: &MessageDescriptor, counting: &mut Counting) -> usize {
        if let Some((_, around)) =
            counting.around.iter().find(|(name, _)| name == message.full_name())
        {
            // It shares the counters of the one around it, and so has fewer entries of its own.
            return *around;
        }
        let index = self.all.len();
        self.all.push(Shape::default());
        counting.around.push((message.full_name().to_owned(), index));
        let mut counters = HashMap::new();
        let mut fields = Vec::new();
        for field in message.fields() {
            let before = counting.counters;
            let holds = self.holds(&field, counting);
            counters.insert(field.number(), before..counting.counters);
            fields.push((field, holds));
        }
        counting.around.pop();
        let of_rivals = |field: &FieldDescriptor| {
            let rivals = field
                .containing_oneof()
                .into_iter()
                .flat_map(|oneof| oneof.fields().collect::<Vec<_>>());
            let rivals = rivals
                .filter(|rival| rival != field)
                .filter_map(|rival| counters.get(&rival.number()));
            rivals.filter(|counters| !counters.is_empty()).cloned().collect::<Vec<_>>()
        };
        let fields = fields.into_iter().map(|(field, holds)| Field {
            number: field.number(),
            name: field.name().to_owned(),
            holds,
            clears: of_rivals(&field),
        });
        self.all[index].fields = fields
            .filter(|field| !matches!(field.holds, Holds::Nothing) || !field.clears.is_empty())
            .collect();
        index
    }

    fn holds(&mut self, field: &FieldDescriptor, counting: &mut Counting) -> Holds {
        match field.kind() {
            _ if field.is_map() => Holds::Items(counting.counted(field)),
            Kind::Message(inner) if field.is_list() => {
                Holds::Messages(self.of(&inner), counting.counted(field))
            }
            Kind::Message(inner) => Holds::Message(self.within(&inner, counting)),
            Kind::String | Kind::Bytes if field.is_list() => Holds::Items(counting.counted(field)),
            _ if field.is_list() => Holds::Numbers(counting.counted(field)),
            _ => Holds::Nothing,
        }
    }
}
