//! A process's connection to the broker, and what goes wrong on it.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use edd_proto::{Consumer, Stream};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use super::broker::Broker;
use super::ledger::{Ledger, Life};
use super::plan::Fault;
use super::world::{World, lock};
use crate::bus::{Answer, Bus, BusError, ConsumerState, Delivery, Position, Question, StreamState};
use crate::message::Message;

/// Questions that wait for the service that answers them.
const MAX_QUESTIONS: usize = 16;

/// What passes between a process and the broker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Link {
    Up,
    /// Nothing.
    Down,
    /// What the process says, and no reply.
    Deaf,
    /// Only what the broker sends: neither messages nor answers arrive.
    Mute,
}

impl Link {
    pub const ALL: [Self; 4] = [Self::Up, Self::Down, Self::Deaf, Self::Mute];
}

/// Which way the call that matters goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// The process tells the broker something.
    Out,
    /// It asks for something.
    In,
}

#[derive(Debug)]
pub(super) struct Client {
    world: Arc<World>,
    broker: Arc<Broker>,
    ledger: Arc<Ledger>,
    link: Mutex<Link>,
    life: Life,
}

fn away(why: &str) -> BusError {
    BusError::Unavailable(why.to_owned())
}

impl Client {
    /// For one process, in one of its lives.
    pub fn new(world: Arc<World>, broker: Arc<Broker>, ledger: Arc<Ledger>, life: Life) -> Arc<Self> {
        Arc::new(Self { world, broker, ledger, link: Mutex::new(Link::Up), life })
    }

    pub fn set_link(&self, link: Link) {
        *lock(&self.link) = link;
    }

    /// # Errors
    /// The call does not arrive.
    async fn arrive(&self, way: Way) -> Result<(), BusError> {
        self.world.pause().await;
        let link = *lock(&self.link);
        let is_cut = link == Link::Down || (link, way) == (Link::Mute, Way::Out);
        if is_cut || self.world.strikes(Fault::Unreachable) { Err(away("not connected")) } else { Ok(()) }
    }

    /// # Errors
    /// The reply does not arrive.
    async fn reply(&self) -> Result<(), BusError> {
        self.world.pause().await;
        let is_cut = matches!(*lock(&self.link), Link::Down | Link::Deaf);
        if is_cut || self.world.strikes(Fault::NoReply) { Err(away("no reply")) } else { Ok(()) }
    }

    async fn call<T>(&self, way: Way, effect: impl FnOnce(&Broker) -> Result<T, BusError>) -> Result<T, BusError> {
        self.arrive(way).await?;
        let result = effect(&self.broker);
        self.reply().await?;
        result
    }

    /// What a pull brings now.
    async fn due(&self, consumer: &Consumer, most: usize) -> Result<Vec<Delivery>, BusError> {
        self.arrive(Way::In).await?;
        let world = &self.world;
        let is_repeating = world.strikes(Fault::Duplicate);
        if is_repeating {
            self.broker.lose_patience(consumer);
        }
        let most = if world.strikes(Fault::Few) { most.min(1 + world.below(3)) } else { most };
        let mut deliveries = self.broker.pull(consumer, most)?;
        self.reply().await?;
        if is_repeating && !deliveries.is_empty() {
            let repeated = deliveries[world.below(deliveries.len())].clone();
            deliveries.push(repeated);
        }
        if world.strikes(Fault::Disorder) {
            world.shuffle(&mut deliveries);
        }
        for delivery in &deliveries {
            self.ledger.hand_over(consumer, self.life, &delivery.message.event_id);
        }
        Ok(deliveries)
    }
}

#[async_trait]
impl Bus for Client {
    async fn ensure(&self, streams: &[Stream], consumers: &[Consumer]) -> Result<(), BusError> {
        self.call(Way::Out, |broker| broker.ensure(streams, consumers)).await
    }

    async fn publish(&self, messages: &[Message]) -> (Vec<Position>, Option<BusError>) {
        if let Err(error) = self.arrive(Way::Out).await {
            return (Vec::new(), Some(error));
        }
        let is_whole = !self.world.strikes(Fault::Partial);
        let taken = if is_whole { messages.len() } else { self.world.below(messages.len() + 1) };
        let (mut positions, mut failure) = self.broker.publish(&messages[..taken]);
        if taken < messages.len() {
            failure = failure.or_else(|| Some(away("the connection broke")));
        }
        if let Err(error) = self.reply().await {
            positions.truncate(self.world.below(positions.len() + 1));
            failure = Some(error);
        }
        (positions, failure)
    }

    async fn stream(&self, stream: &str) -> Result<StreamState, BusError> {
        self.call(Way::In, |broker| broker.stream(stream)).await
    }

    async fn consumer(&self, consumer: &Consumer) -> Result<ConsumerState, BusError> {
        // Who waits for a consumer asks this again and again: it must not keep the consumer from its work.
        if self.world.is_stormy() {
            self.world.give_way().await;
        }
        self.call(Way::In, |broker| broker.consumer(consumer)).await
    }

    async fn pull(&self, consumer: &Consumer, most: usize, wait: Duration) -> Result<Vec<Delivery>, BusError> {
        let deadline = Instant::now() + wait;
        loop {
            let changed = self.broker.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            let deliveries = self.due(consumer, most).await?;
            let left = deadline.saturating_duration_since(Instant::now());
            if !deliveries.is_empty() || left.is_zero() {
                return Ok(deliveries);
            }
            let pause = self.broker.next_due(consumer).map_or(left, |due| due.min(left));
            // Either is a reason to look again.
            let _ = tokio::time::timeout(pause, changed).await;
        }
    }

    async fn answer(&self, consumer: &Consumer, delivery: &Delivery, answer: Answer) -> Result<(), BusError> {
        self.call(Way::Out, |broker| broker.answer(consumer, delivery.seq, answer)).await
    }

    async fn read(
        &self,
        stream: &str,
        seq: u64,
        filters: &[&str],
        most: usize,
    ) -> Result<Vec<(u64, Message)>, BusError> {
        let most = if self.world.strikes(Fault::Few) { most.min(2) } else { most };
        self.call(Way::In, |broker| broker.read(stream, seq, filters, most)).await
    }

    async fn arrival(&self, stream: &str, seq: u64, wait: Duration) -> Result<(), BusError> {
        let changed = self.broker.changed.notified();
        tokio::pin!(changed);
        changed.as_mut().enable();
        if self.stream(stream).await?.last_seq <= seq {
            // The caller looks either way.
            let _ = tokio::time::timeout(wait, changed).await;
        }
        Ok(())
    }

    async fn ask(&self, subject: &str, question: Bytes, wait: Duration) -> Result<Bytes, BusError> {
        let service = lock(&self.broker.services).get(subject).cloned().ok_or(BusError::NoAnswer(wait))?;
        let (reply, answer) = oneshot::channel();
        let asked = async {
            service.send(Question { payload: question, reply }).await.ok()?;
            answer.await.ok()
        };
        match tokio::time::timeout(wait, asked).await {
            Ok(Some(answer)) => Ok(answer),
            Ok(None) | Err(_) => Err(BusError::NoAnswer(wait)),
        }
    }

    async fn serve(&self, subject: &'static str) -> Result<mpsc::Receiver<Question>, BusError> {
        let (sender, receiver) = mpsc::channel(MAX_QUESTIONS);
        lock(&self.broker.services).insert(subject.to_owned(), sender);
        Ok(receiver)
    }
}
