//! What a schedule is made of, drawn from its seed.
//!
//! Not everything goes wrong in every schedule: of a few faults at a time, some come often. Faults that hide one another
//! are then also met apart.

use std::time::Duration;

use edd_proto::Encoding;

use super::world::World;

/// What may go wrong in any call, without the driver's asking.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// Others go first.
    Pause,
    /// A call to the bus or to the owner never arrives.
    Unreachable,
    /// A call takes effect, and its reply is lost.
    NoReply,
    /// The bus takes the first few of a batch.
    Partial,
    /// A pull brings fewer than there are.
    Few,
    /// A pull brings something twice, or again before its time.
    Duplicate,
    /// A pull brings what it brings in any order.
    Disorder,
    /// A handler fails a few times.
    Transient,
    /// A handler fails at this event until somebody mends it.
    Poison,
    /// What a handler needs besides the database is away.
    Dependency,
    /// A handler takes so long that what shares its transaction may not fit into it.
    Slow,
    /// The process dies after the handler's effect and before the commit.
    Death,
    /// A commit never reaches the database.
    LostCommit,
    /// A commit takes effect, and nobody hears of it.
    SilentCommit,
}

impl Fault {
    const ALL: [Self; 14] = [
        Self::Pause,
        Self::Unreachable,
        Self::NoReply,
        Self::Partial,
        Self::Few,
        Self::Duplicate,
        Self::Disorder,
        Self::Transient,
        Self::Poison,
        Self::Dependency,
        Self::Slow,
        Self::Death,
        Self::LostCommit,
        Self::SilentCommit,
    ];
}

/// How often each fault happens, percent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Rates([u8; Fault::ALL.len()]);

impl Rates {
    pub fn of(&self, fault: Fault) -> u8 {
        self.0[fault as usize]
    }
}

/// What the driver does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// The owner changes something, or changes its mind.
    Write,
    /// A process begins a job, or goes on with it.
    Work,
    /// Time passes.
    Wait,
    /// The clock is set back.
    JumpBack,
    /// A week passes while nobody does anything.
    Sleep,
    /// A process loses its connection to the bus, in one direction or both, or gets it back.
    Link,
    /// A database goes away, or comes back.
    Database,
    /// A process dies and is started again.
    Kill,
    /// The bus loses all of its data, or one stream.
    Loss,
    /// The bus loses the last messages of a stream, which it had acknowledged.
    LostTail,
    /// The bus's data are copied.
    BackUp,
    /// The bus's data are what they were at the last copy.
    Restore,
    /// The oldest messages of a stream go.
    Expire,
    /// Somebody has dead letters tried again.
    Requeue,
}

impl Step {
    /// Each with its weight, and whether every schedule has it.
    const ALL: [(Self, usize, bool); 14] = [
        (Self::Write, 22, true),
        (Self::Work, 80, true),
        (Self::Wait, 8, true),
        (Self::JumpBack, 2, false),
        (Self::Sleep, 1, false),
        (Self::Link, 5, false),
        (Self::Database, 5, false),
        (Self::Kill, 5, false),
        (Self::Loss, 2, false),
        (Self::LostTail, 2, false),
        (Self::BackUp, 2, false),
        (Self::Restore, 2, false),
        (Self::Expire, 3, false),
        (Self::Requeue, 2, false),
    ];
}

/// One schedule's.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    pub rates: Rates,
    steps: Vec<(Step, usize)>,
    pub length: usize,
    /// Users and namespaces, each.
    pub entities: usize,
    /// Rows in one of the owner's pages at most.
    pub page_rows: u32,
    /// How long the bus remembers what was published.
    pub window: Duration,
    pub encoding: Encoding,
    /// Whether the projection has had its first snapshot before anything happens.
    pub is_ready: bool,
}

impl Plan {
    pub fn draw(world: &World) -> Self {
        let mut rates = Rates::default();
        for rate in &mut rates.0 {
            *rate = [0, 0, 0, 3, 10, 30][world.below(6)];
        }
        // Without it nothing is interleaved.
        rates.0[Fault::Pause as usize] = [0, 20, 50][world.below(3)];
        let steps = Step::ALL.into_iter().filter(|(_, _, always)| *always || world.chance(25));
        let steps = steps.map(|(step, weight, _)| (step, weight)).collect();
        Self {
            rates,
            steps,
            length: 20 + world.below(60),
            entities: 1 + world.below(4),
            page_rows: [1, 2, 100][world.below(3)],
            window: [Duration::ZERO, Duration::from_secs(120), Duration::MAX][world.below(3)],
            encoding: [Encoding::Protobuf, Encoding::Json][world.below(2)],
            is_ready: world.chance(80),
        }
    }

    pub fn next(&self, world: &World) -> Step {
        let mut left = world.below(self.steps.iter().map(|(_, weight)| weight).sum());
        for (step, weight) in &self.steps {
            match left.checked_sub(*weight) {
                Some(rest) => left = rest,
                None => return *step,
            }
        }
        unreachable!("the weights add up")
    }
}
