//! A local bus of which nobody learns how far a consumer is before the test lets them.

use bytes::Bytes;
use edd_events::bus::local::LocalBus;
use edd_events::bus::{Answer, ConsumerState, Delivery, Position, Question};
use tokio::sync::mpsc;

use super::*;

#[derive(Debug)]
pub(super) struct HeldBus {
    bus: Arc<LocalBus>,
    asked: Notify,
    go: Notify,
}

impl HeldBus {
    pub(super) fn new(bus: Arc<LocalBus>) -> Self {
        Self { bus, asked: Notify::new(), go: Notify::new() }
    }

    /// Has `meanwhile` happen when somebody is about to ask how far a consumer is.
    pub(super) async fn before_look(&self, meanwhile: impl Future<Output = ()>) {
        self.asked.notified().await;
        meanwhile.await;
        self.go.notify_one();
    }
}

#[async_trait]
impl Bus for HeldBus {
    async fn ensure(&self, streams: &[Stream], consumers: &[Consumer]) -> Result<(), BusError> {
        self.bus.ensure(streams, consumers).await
    }

    async fn publish(&self, messages: &[Message]) -> (Vec<Position>, Option<BusError>) {
        self.bus.publish(messages).await
    }

    async fn stream(&self, stream: &str) -> Result<StreamState, BusError> {
        self.bus.stream(stream).await
    }

    async fn consumer(&self, consumer: &Consumer) -> Result<ConsumerState, BusError> {
        self.asked.notify_one();
        self.go.notified().await;
        self.bus.consumer(consumer).await
    }

    async fn pull(&self, consumer: &Consumer, most: usize, wait: Duration) -> Result<Vec<Delivery>, BusError> {
        self.bus.pull(consumer, most, wait).await
    }

    async fn answer(&self, consumer: &Consumer, delivery: &Delivery, answer: Answer) -> Result<(), BusError> {
        self.bus.answer(consumer, delivery, answer).await
    }

    async fn read(
        &self,
        stream: &str,
        seq: u64,
        filters: &[&str],
        most: usize,
    ) -> Result<Vec<(u64, Message)>, BusError> {
        self.bus.read(stream, seq, filters, most).await
    }

    async fn arrival(&self, stream: &str, seq: u64, wait: Duration) -> Result<(), BusError> {
        self.bus.arrival(stream, seq, wait).await
    }

    async fn ask(&self, subject: &str, question: Bytes, wait: Duration) -> Result<Bytes, BusError> {
        self.bus.ask(subject, question, wait).await
    }

    async fn serve(&self, subject: &'static str) -> Result<mpsc::Receiver<Question>, BusError> {
        self.bus.serve(subject).await
    }
}
