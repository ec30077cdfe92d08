//! A local bus that tests watch, close, and hold up.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::{Notify, mpsc};

use super::*;
use crate::bus::local::LocalBus;

/// Fails every call while it is closed, as a bus that is away does.
#[derive(Debug)]
pub(crate) struct Watched {
    bus: Arc<LocalBus>,
    is_open: AtomicBool,
    /// Is told every answer, by the delivery's number.
    answers: Option<mpsc::Sender<(u64, Answer)>>,
    looks: Option<Looks>,
}

/// Who asks how far a consumer is waits for the test.
#[derive(Debug, Default)]
struct Looks {
    begun: Notify,
    go: Notify,
}

impl Watched {
    pub(crate) fn telling(bus: Arc<LocalBus>, answers: mpsc::Sender<(u64, Answer)>) -> Self {
        Self { bus, is_open: true.into(), answers: Some(answers), looks: None }
    }

    pub(crate) fn holding_looks(bus: Arc<LocalBus>) -> Self {
        Self { bus, is_open: true.into(), answers: None, looks: Some(Looks::default()) }
    }

    pub(crate) fn closed(bus: Arc<LocalBus>) -> Self {
        Self { bus, is_open: false.into(), answers: None, looks: None }
    }

    pub(crate) fn open(&self, is_open: bool) {
        self.is_open.store(is_open, Ordering::Relaxed);
    }

    /// Has `meanwhile` happen when somebody is about to ask how far a consumer is.
    pub(crate) async fn before_look(&self, meanwhile: impl Future<Output = ()>) {
        let looks = self.looks.as_ref().expect("a bus that holds looks");
        looks.begun.notified().await;
        meanwhile.await;
        looks.go.notify_one();
    }

    fn pass(&self) -> Result<&LocalBus, BusError> {
        if self.is_open.load(Ordering::Relaxed) {
            return Ok(&self.bus);
        }
        Err(BusError::Unavailable("connection refused".to_owned()))
    }
}

#[async_trait]
impl Bus for Watched {
    async fn ensure(&self, streams: &[Stream], consumers: &[Consumer]) -> Result<(), BusError> {
        self.pass()?.ensure(streams, consumers).await
    }

    async fn publish(&self, messages: &[Message]) -> (Vec<Position>, Option<BusError>) {
        match self.pass() {
            Ok(bus) => bus.publish(messages).await,
            Err(error) => (Vec::new(), Some(error)),
        }
    }

    async fn stream(&self, stream: &str) -> Result<StreamState, BusError> {
        self.pass()?.stream(stream).await
    }

    async fn consumer(&self, consumer: &Consumer) -> Result<ConsumerState, BusError> {
        if let Some(looks) = &self.looks {
            looks.begun.notify_one();
            looks.go.notified().await;
        }
        self.pass()?.consumer(consumer).await
    }

    async fn pull(&self, consumer: &Consumer, most: usize, wait: Duration) -> Result<Vec<Delivery>, BusError> {
        self.pass()?.pull(consumer, most, wait).await
    }

    async fn answer(&self, consumer: &Consumer, delivery: &Delivery, answer: Answer) -> Result<(), BusError> {
        if let Some(answers) = &self.answers {
            answers.send((delivery.seq, answer)).await.expect("the test listens");
        }
        self.pass()?.answer(consumer, delivery, answer).await
    }

    async fn read(
        &self,
        stream: &str,
        seq: u64,
        filters: &[&str],
        most: usize,
    ) -> Result<Vec<(u64, Message)>, BusError> {
        self.pass()?.read(stream, seq, filters, most).await
    }

    async fn arrival(&self, stream: &str, seq: u64, wait: Duration) -> Result<(), BusError> {
        self.pass()?.arrival(stream, seq, wait).await
    }

    async fn ask(&self, subject: &str, question: Bytes, wait: Duration) -> Result<Bytes, BusError> {
        self.pass()?.ask(subject, question, wait).await
    }

    async fn serve(&self, subject: &'static str) -> Result<mpsc::Receiver<Question>, BusError> {
        self.pass()?.serve(subject).await
    }
}
