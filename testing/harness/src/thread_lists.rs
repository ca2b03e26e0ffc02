//! Lists of threads and of their messages, by page, at the ledger.

mod server_time;

use std::collections::BTreeMap;
use std::time::Instant;

use anyhow::{Context as _, ensure};
use baton_protocol::{MessageId, TenantId, ThreadId};
use baton_service::{Clock as _, SystemClock};
use baton_store::{Append, MessageOrder, Store, ThreadFilter};
use baton_test_ledger::TestDatabase;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use serde_json::json;
use serde_json::value::to_raw_value;
use uuid::Uuid;

use self::server_time::ServerTime;
use crate::samples::Samples;

/// The threads that are filled at a time.
const AT_ONCE: usize = 8;
/// The threads on a page, which is the usual size, and the messages on one, which is the greatest.
const PAGE: u32 = 20;
const MESSAGE_PAGE: u32 = 100;
/// The statement of a page of messages, from the last one on.
const MESSAGES: &str = "thread_messages.list_backwards";
/// The searches of each kind.
const SEARCHES: usize = 20;

/// The times of each list, one for each page.
#[derive(Debug, Default)]
pub struct ThreadLists {
    /// All threads of the tenant, page after page.
    pub threads: Samples,
    /// The same pages, the statement alone at the server.
    pub threads_at_server: Samples,
    /// The messages of a thread, from the last one on.
    pub messages: Samples,
    /// The same pages, the statement alone at the server.
    pub messages_at_server: Samples,
    /// The one thread with a text in its title.
    pub by_title: Samples,
    /// The one thread with a field in its metadata.
    pub by_metadata: Samples,
}

/// Fills a ledger with this many threads of so many messages, and lists them.
pub async fn measure(threads: usize, messages: usize) -> anyhow::Result<ThreadLists> {
    let database = TestDatabase::create().await;
    let store = database.store().await;
    let tenant = TenantId::new(SystemClock.now());
    store.system().ensure_tenant(tenant, "bench").await?;
    let numbers = stream::iter(0..threads).map(Ok::<_, anyhow::Error>);
    numbers
        .try_for_each_concurrent(AT_ONCE, |number| fill(&store, tenant, number, messages))
        .await?;
    let mut lists = ThreadLists::default();
    let mut cursor = None;
    let mut at_server = None;
    let mut seen = Vec::new();
    loop {
        let mut tx = store.tenant(tenant).await?;
        let begun = Instant::now();
        let page = tx
            .list_threads(&ThreadFilter::default(), cursor, PAGE)
            .await?;
        lists.threads.push(begun.elapsed());
        let at_server = match &mut at_server {
            Some(known) => known,
            none => none.insert(ServerTime::of(&database, tenant, "threads.list").await?),
        };
        let before = cursor.map_or(Uuid::max(), |cursor: ThreadId| cursor.as_uuid());
        let arguments = format!("'{tenant}', '{before}', NULL, {}", PAGE + 1);
        lists
            .threads_at_server
            .push(at_server.take(&arguments).await?);
        seen.extend(page.data.iter().map(|thread| thread.id));
        cursor = page.next_cursor;
        if cursor.is_none() {
            break;
        }
    }
    ensure!(seen.len() == threads, "{} threads are listed", seen.len());
    let mut at_server = None;
    for thread in seen.iter().step_by(seen.len().div_ceil(100)) {
        let mut tx = store.tenant(tenant).await?;
        let begun = Instant::now();
        let order = MessageOrder::Descending;
        let page = tx
            .thread_messages(*thread, order, None, MESSAGE_PAGE)
            .await?;
        lists.messages.push(begun.elapsed());
        let at_server = match &mut at_server {
            Some(known) => known,
            none => none.insert(ServerTime::of(&database, tenant, MESSAGES).await?),
        };
        let arguments = format!("'{tenant}', '{thread}', {}, {}", i64::MAX, MESSAGE_PAGE + 1);
        lists
            .messages_at_server
            .push(at_server.take(&arguments).await?);
        ensure!(!page.data.is_empty(), "a thread has no messages");
    }
    for number in (0..threads).step_by(threads.div_ceil(SEARCHES)) {
        let title = title(number);
        let by_title = ThreadFilter {
            title: Some(&title),
            metadata: None,
        };
        search(&store, tenant, &by_title, &mut lists.by_title).await?;
        let metadata = metadata(number);
        let by_metadata = ThreadFilter {
            title: None,
            metadata: Some(&metadata),
        };
        search(&store, tenant, &by_metadata, &mut lists.by_metadata).await?;
    }
    Ok(lists)
}

fn title(number: usize) -> String {
    format!("Trip number {number} to Rome")
}

/// Returns a field that every thread has, and one of its own.
fn metadata(number: usize) -> BTreeMap<String, String> {
    [
        ("app", "bench".to_owned()),
        ("user", format!("user-{number}")),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .into()
}

async fn fill(
    store: &Store,
    tenant: TenantId,
    number: usize,
    messages: usize,
) -> anyhow::Result<()> {
    let message = json!({"role": "user", "content": "I like trains, and towns with old walls."});
    let message = to_raw_value(&message)?;
    let id = ThreadId::new(SystemClock.now());
    let mut tx = store.tenant(tenant).await?;
    tx.create_thread(
        id,
        Some(&title(number)),
        Some(&to_raw_value(&metadata(number))?),
    )
    .await?;
    let messages: Vec<_> = (0..messages)
        .map(|_| (MessageId::new(SystemClock.now()), &*message))
        .collect();
    let appended = tx.append_messages(id, &messages).await?;
    ensure!(matches!(appended, Append::Appended(_)), "{appended:?}");
    Ok(tx.commit().await?)
}

async fn search(
    store: &Store,
    tenant: TenantId,
    filter: &ThreadFilter<'_>,
    times: &mut Samples,
) -> anyhow::Result<()> {
    let mut tx = store.tenant(tenant).await?;
    let begun = Instant::now();
    let page = tx.list_threads(filter, None, PAGE).await?;
    times.push(begun.elapsed());
    page.data.first().context("a search finds nothing")?;
    Ok(())
}
