//! Lists of items, and counts of tokens.

use serde::Serialize;

use crate::items::Item;

/// A page of items.
#[derive(Debug, Serialize)]
pub struct ItemList {
    object: &'static str,
    data: Vec<Item>,
    first_id: Option<String>,
    last_id: Option<String>,
    has_more: bool,
}

/// The order of a list.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Order {
    /// The oldest first.
    Asc,
    /// The newest first.
    #[default]
    Desc,
}

/// Returns at most `limit` of the items after the one with id `after`; `None` if there is no such
/// item.
pub fn page(
    mut items: Vec<Item>,
    order: Order,
    after: Option<&str>,
    limit: usize,
) -> Option<ItemList> {
    if order == Order::Desc {
        items.reverse();
    }
    if let Some(after) = after {
        let at = items.iter().position(|item| item.id() == after)?;
        items.drain(..=at);
    }
    let has_more = items.len() > limit;
    items.truncate(limit);
    Some(ItemList {
        has_more,
        ..whole_list(items)
    })
}

/// Returns the list of these items alone.
pub fn whole_list(items: Vec<Item>) -> ItemList {
    let id = |item: Option<&Item>| item.map(|item| item.id().to_owned());
    ItemList {
        object: "list",
        first_id: id(items.first()),
        last_id: id(items.last()),
        has_more: false,
        data: items,
    }
}

/// The answer of `POST /v1/responses/input_tokens`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct InputTokens {
    object: &'static str,
    input_tokens: u64,
}

impl InputTokens {
    /// Makes an answer.
    pub const fn new(input_tokens: u64) -> Self {
        Self {
            object: "response.input_tokens",
            input_tokens,
        }
    }
}
