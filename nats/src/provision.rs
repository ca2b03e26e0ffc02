//! Creates missing streams and consumers. Reports different ones but never changes them, because a
//! change to a stream can delete its messages.

use std::fmt;

use async_nats::jetstream::ErrorCode;
use async_nats::jetstream::consumer::{self, IntoConsumerConfig as _};
use async_nats::jetstream::context::{
    ConsumerInfoErrorKind, CreateStreamErrorKind, GetStreamErrorKind,
};
use async_nats::jetstream::stream;
use async_nats::jetstream::stream::ConsumerCreateStrictErrorKind;
use serde::Serialize;
use serde_json::Value;

use crate::bus::Bus;
use crate::streams::{self, StreamOptions};

/// Something that was created.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// A stream.
    CreatedStream(String),
    /// A consumer of JOBS.
    CreatedConsumer(String),
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::CreatedStream(name) => write!(f, "created stream {name}"),
            Self::CreatedConsumer(name) => {
                write!(f, "created consumer {name} of stream {}", streams::JOBS)
            }
        }
    }
}

/// One setting that a server has in another form than it should.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// The stream or consumer: `stream EVENTS`, `consumer worker-background`.
    pub asset: String,
    /// The setting, as in the JetStream API.
    pub field: String,
    /// The wanted value, as JSON.
    pub want: String,
    /// The present value, as JSON.
    pub have: String,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            asset,
            field,
            want,
            have,
        } = self;
        write!(f, "{asset}: {field} is {have}, should be {want}")
    }
}

/// The result of comparing a server with the definitions.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Inspection {
    /// The missing streams and consumers, named as in [`Difference::asset`].
    pub missing: Vec<String>,
    /// The settings with another value.
    pub differences: Vec<Difference>,
}

/// A reason for which the definitions do not hold on the server.
#[derive(Debug, thiserror::Error)]
pub enum ProvisionError {
    /// Something exists and is different. Missing ones have been created all the same.
    #[error(
        "NATS has streams or consumers that differ from what this version needs; change them, or \
         the configuration, and try again:{}", lines(.0)
    )]
    Drift(Vec<Difference>),
    /// A stream can be neither looked at nor created.
    #[error("stream {name}: {source}")]
    Stream {
        /// The stream.
        name: String,
        /// The cause.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A consumer can be neither looked at nor created.
    #[error("consumer {name}: {source}")]
    Consumer {
        /// The consumer.
        name: String,
        /// The cause.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

fn lines(differences: &[Difference]) -> String {
    use fmt::Write as _;

    differences
        .iter()
        .fold(String::new(), |mut lines, difference| {
            let written = write!(lines, "\n  {difference}");
            debug_assert!(written.is_ok(), "writing to a string cannot fail");
            lines
        })
}

/// Creates missing streams and consumers, and fails if one differs. Safe to repeat.
pub async fn provision(bus: &Bus, options: &StreamOptions) -> Result<Vec<Change>, ProvisionError> {
    let (changes, drift) = ensure(bus, options).await?;
    if drift.is_empty() {
        Ok(changes)
    } else {
        Err(ProvisionError::Drift(drift))
    }
}

/// Creates missing streams and consumers, as after a broker lost its disk. Ignores differences.
pub async fn restore_missing(
    bus: &Bus,
    options: &StreamOptions,
) -> Result<Vec<Change>, ProvisionError> {
    Ok(ensure(bus, options).await?.0)
}

/// Looks for what [`provision`] would create, and for what it would fail at. Changes nothing.
pub async fn inspect(bus: &Bus, options: &StreamOptions) -> Result<Inspection, ProvisionError> {
    let mut found = Inspection::default();
    for want in streams::streams(options) {
        let name = want.name.clone();
        match find_stream(bus, &name).await {
            Ok(have) => found.add(format!("stream {name}"), &want, have.as_ref()),
            Err(source) => return Err(ProvisionError::Stream { name, source }),
        }
    }
    for want in streams::consumers(options) {
        let name = want.durable_name.clone().unwrap_or_default();
        match find_consumer(bus, &name).await {
            Ok(have) => {
                let want = want.into_consumer_config();
                found.add(format!("consumer {name}"), &want, have.as_ref());
            }
            Err(source) => return Err(ProvisionError::Consumer { name, source }),
        }
    }
    Ok(found)
}

impl Inspection {
    fn add<C: Serialize>(&mut self, asset: String, want: &C, have: Option<&C>) {
        match have {
            Some(have) => self.differences.extend(compare(&asset, want, have)),
            None => self.missing.push(asset),
        }
    }
}

async fn ensure(
    bus: &Bus,
    options: &StreamOptions,
) -> Result<(Vec<Change>, Vec<Difference>), ProvisionError> {
    let mut changes = Vec::new();
    let mut drift = Vec::new();
    for want in streams::streams(options) {
        let name = want.name.clone();
        match ensure_stream(bus, want.clone())
            .await
            .map_err(|source| ProvisionError::Stream {
                name: name.clone(),
                source,
            })? {
            None => changes.push(Change::CreatedStream(name)),
            Some(have) => drift.extend(compare(&format!("stream {name}"), &want, &have)),
        }
    }
    for want in streams::consumers(options) {
        let name = want.durable_name.clone().unwrap_or_default();
        match ensure_consumer(bus, want.clone(), &name)
            .await
            .map_err(|source| ProvisionError::Consumer {
                name: name.clone(),
                source,
            })? {
            None => changes.push(Change::CreatedConsumer(name)),
            Some(have) => {
                let want = want.into_consumer_config();
                drift.extend(compare(&format!("consumer {name}"), &want, &have));
            }
        }
    }
    Ok((changes, drift))
}

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Returns the stream's settings; `None` if it does not exist.
async fn find_stream(bus: &Bus, name: &str) -> Result<Option<stream::Config>, Failure> {
    match bus.jetstream().get_stream(name).await {
        Ok(stream) => Ok(Some(stream.cached_info().config.clone())),
        Err(error) => match error.kind() {
            GetStreamErrorKind::JetStream(refusal)
                if refusal.error_code() == ErrorCode::STREAM_NOT_FOUND =>
            {
                Ok(None)
            }
            _ => Err(error.into()),
        },
    }
}

/// Returns the settings of a consumer of JOBS; `None` if it does not exist.
async fn find_consumer(bus: &Bus, name: &str) -> Result<Option<consumer::Config>, Failure> {
    let jobs = bus.jetstream().get_stream_no_info(streams::JOBS).await?;
    match jobs.consumer_info(name).await {
        Ok(info) => Ok(Some(info.config)),
        Err(error) => match error.kind() {
            ConsumerInfoErrorKind::NotFound | ConsumerInfoErrorKind::StreamNotFound => Ok(None),
            _ => Err(error.into()),
        },
    }
}

/// Returns the stream's settings, or `None` if it was created.
async fn ensure_stream(bus: &Bus, want: stream::Config) -> Result<Option<stream::Config>, Failure> {
    if let Some(have) = find_stream(bus, &want.name).await? {
        return Ok(Some(have));
    }
    let jetstream = bus.jetstream();
    let name = want.name.clone();
    match jetstream.create_stream(want).await {
        Ok(_) => Ok(None),
        // Another process was faster, with other settings.
        Err(error) => match error.kind() {
            CreateStreamErrorKind::JetStream(refusal)
                if refusal.error_code() == ErrorCode::STREAM_NAME_EXIST =>
            {
                Ok(Some(
                    jetstream
                        .get_stream(name)
                        .await?
                        .cached_info()
                        .config
                        .clone(),
                ))
            }
            _ => Err(error.into()),
        },
    }
}

/// Returns the consumer's settings, or `None` if it was created.
async fn ensure_consumer(
    bus: &Bus,
    want: consumer::pull::Config,
    name: &str,
) -> Result<Option<consumer::Config>, Failure> {
    if let Some(have) = find_consumer(bus, name).await? {
        return Ok(Some(have));
    }
    let jobs = bus.jetstream().get_stream_no_info(streams::JOBS).await?;
    match jobs.create_consumer_strict(want).await {
        Ok(_) => Ok(None),
        Err(error) => match error.kind() {
            ConsumerCreateStrictErrorKind::AlreadyExists => {
                Ok(Some(jobs.consumer_info(name).await?.config))
            }
            _ => Err(error.into()),
        },
    }
}

/// Returns each wanted setting for which the server has another value. Settings that Baton does not
/// set, and those that the server adds, do not count.
fn compare(asset: &str, want: &impl Serialize, have: &impl Serialize) -> Vec<Difference> {
    let have = fields(have);
    fields(want)
        .into_iter()
        .filter(|(field, _)| !matches!(field.as_str(), "metadata" | "consumer_limits"))
        .filter_map(|(field, want)| {
            let have = have.get(&field).cloned().unwrap_or(Value::Null);
            (want != have).then(|| Difference {
                asset: asset.to_owned(),
                field,
                want: want.to_string(),
                have: have.to_string(),
            })
        })
        .collect()
}

fn fields(config: &impl Serialize) -> serde_json::Map<String, Value> {
    match serde_json::to_value(config) {
        Ok(Value::Object(fields)) => fields,
        other => {
            debug_assert!(false, "a configuration is a JSON object: {other:?}");
            serde_json::Map::new()
        }
    }
}
