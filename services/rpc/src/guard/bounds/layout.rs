//! Which fields of a request hold lists and maps, and where their entries are counted.

use std::{collections::HashMap, ops::Range, sync::LazyLock};

use prost_reflect::{FieldDescriptor, Kind, MessageDescriptor};

use super::items::max_items;
use crate::guard::methods;

/// Maximum number of separately counted lists and maps in one message, including the single
/// messages within it.
pub(super) const COUNTERS: usize = 8;

pub(super) static LAYOUTS: LazyLock<Layouts> = LazyLock::new(Layouts::of_requests);

/// The layouts of all messages that public requests can hold.
#[derive(Default)]
pub(super) struct Layouts {
    pub(super) all: Vec<Layout>,
    /// Messages that are decoded on their own: requests and entries of lists.
    pub(super) by_message: HashMap<String, usize>,
    pub(super) by_path: HashMap<String, usize>,
}

/// The fields of a message whose entries are counted, or that lead to such fields.
#[derive(Default)]
pub(super) struct Layout {
    pub(super) fields: Vec<Field>,
}

pub(super) struct Field {
    pub(super) number: u32,
    pub(super) name: String,
    pub(super) holds: Holds,
    /// Counters of the other members of its oneof. They are reset when this field arrives.
    pub(super) clears: Vec<Range<usize>>,
}

#[derive(Clone, Copy)]
pub(super) enum Holds {
    /// Nothing that is counted.
    Nothing,
    /// A single message. If it arrives again, it is merged with the earlier one.
    Message(usize),
    /// A list of messages.
    Messages(usize, Counted),
    /// A list of scalars of variable length, which may be packed.
    Numbers(Counted),
    /// A map, or a list of anything else.
    Items(Counted),
}

impl Holds {
    /// Whether the field may have this wire type. The decoder refuses most other types too, but it
    /// accepts any for a map, and then continues at a different byte than a reader that trusts the
    /// type.
    pub(super) fn takes(self, wire_type: u64) -> bool {
        match self {
            Self::Nothing => true,
            Self::Numbers(_) => matches!(wire_type, VARINT | DELIMITED),
            Self::Message(_) | Self::Messages(..) | Self::Items(_) => wire_type == DELIMITED,
        }
    }
}

/// Numbers of the wire types.
pub(super) const VARINT: u64 = 0;
pub(super) const EIGHT_BYTES: u64 = 1;
pub(super) const DELIMITED: u64 = 2;
pub(super) const FOUR_BYTES: u64 = 5;

/// A counter and its limit.
#[derive(Clone, Copy)]
pub(super) struct Counted {
    pub(super) counter: usize,
    pub(super) most: u32,
}

/// The counters of a message that is decoded on its own, while its layout is built. A single
/// message within it has its own layout at each position: the lists in a message that arrives
/// twice add up, so each list at each position needs its own counter.
#[derive(Default)]
pub(super) struct Counting {
    /// Number of lists that have a counter.
    pub(super) counters: usize,
    /// The enclosing messages, by name.
    around: Vec<(String, usize)>,
}

impl Counting {
    fn counted(&mut self, field: &FieldDescriptor) -> Counted {
        let counter = self.counters.min(COUNTERS - 1);
        self.counters += 1;
        Counted { counter, most: max_items(field) }
    }
}

impl Layouts {
    pub(super) fn of_requests() -> Self {
        let mut layouts = Self::default();
        for service in methods::public_services() {
            for method in service.methods() {
                let layout = layouts.of(&method.input());
                layouts.by_path.insert(methods::path(&method), layout);
            }
        }
        layouts
    }

    /// Returns the layout of a message that is decoded on its own.
    fn of(&mut self, message: &MessageDescriptor) -> usize {
        if let Some(known) = self.by_message.get(message.full_name()) {
            return *known;
        }
        // Its index is registered before its fields are read, because they may lead back to it.
        self.by_message.insert(message.full_name().to_owned(), self.all.len());
        self.within(message, &mut Counting::default())
    }

    pub(super) fn within(&mut self, message: &MessageDescriptor, counting: &mut Counting) -> usize {
        if let Some((_, around)) =
            counting.around.iter().find(|(name, _)| name == message.full_name())
        {
            // It shares the counters of the enclosing message of the same type, so it may have
            // fewer entries.
            return *around;
        }
        let index = self.all.len();
        self.all.push(Layout::default());
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
