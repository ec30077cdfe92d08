//! A stream of a NATS server without us.

use async_nats::HeaderMap;
use async_nats::jetstream::consumer::pull::Config as Pull;
use async_nats::jetstream::consumer::{AckPolicy, PullConsumer};
use async_nats::jetstream::{self, Context, stream};
use async_trait::async_trait;
use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt};

use crate::bare::{BATCH, BareBus, PAYLOAD};

const SUBJECT: &str = "bare.message";

#[derive(Debug)]
pub struct BareNats {
    client: async_nats::Client,
    context: Context,
    taker: PullConsumer,
    reader: PullConsumer,
}

impl BareNats {
    pub async fn open(url: &str) -> Self {
        let client = async_nats::connect(url).await.expect("a server");
        let context = jetstream::new(client.clone());
        let config = stream::Config {
            name: "BARE".to_owned(),
            subjects: vec![SUBJECT.to_owned()],
            allow_atomic_publish: true,
            ..stream::Config::default()
        };
        let stream = context.create_stream(config).await.expect("a stream");
        let consumer = |name: &str, ack_policy| Pull {
            durable_name: Some(name.to_owned()),
            ack_policy,
            max_ack_pending: if ack_policy == AckPolicy::None { 0 } else { BATCH as i64 },
            ..Pull::default()
        };
        let taker = stream.create_consumer(consumer("taker", AckPolicy::Explicit)).await.expect("a consumer");
        let reader = stream.create_consumer(consumer("reader", AckPolicy::None)).await.expect("a consumer");
        Self { client, context, taker, reader }
    }
}

#[async_trait]
impl BareBus for BareNats {
    async fn publish(&self) {
        let sent = self.context.publish(SUBJECT, Bytes::from_static(&PAYLOAD)).await.expect("a connection");
        sent.await.expect("an acknowledgement");
    }

    /// One that is stored as a whole (NATS ADR-50), the fastest way there is to be sure of all of them.
    async fn publish_batch(&self) {
        let id = self.client.new_inbox();
        let id = id.rsplit('.').next().expect("a token");
        for place in 1..=BATCH {
            let mut headers = HeaderMap::new();
            headers.insert("Nats-Batch-Id", id);
            headers.insert("Nats-Batch-Sequence", place.to_string());
            let payload = Bytes::from_static(&PAYLOAD);
            if place < BATCH {
                self.client.publish_with_headers(SUBJECT, headers, payload).await.expect("a connection");
            } else {
                headers.insert("Nats-Batch-Commit", "1");
                let sent = self.context.publish_with_headers(SUBJECT, headers, payload).await.expect("a connection");
                sent.await.expect("an acknowledgement");
            }
        }
    }

    async fn take_batch(&self) -> usize {
        let mut messages = self.taker.fetch().max_messages(BATCH).messages().await.expect("messages");
        let mut taken = 0;
        while let Some(message) = messages.next().await {
            message.expect("a message").ack().await.expect("a connection");
            taken += 1;
        }
        self.client.flush().await.expect("a connection");
        taken
    }

    async fn read_batch(&self) -> usize {
        let messages = self.reader.fetch().max_messages(BATCH).messages().await.expect("messages");
        messages.try_fold(0, |read, _| async move { Ok(read + 1) }).await.expect("messages")
    }
}
