//! `input` of a request: a text, or an array of items.

use super::mcp::{read_answer, read_call, read_list, read_question};
use super::{Item, ItemStatus, Output, Part};
use crate::Invalid;
use crate::read::{At, Object};

const ROLES: [&str; 4] = ["user", "system", "developer", "assistant"];
const PHASES: [&str; 2] = ["commentary", "final_answer"];
const DETAILS: [&str; 4] = ["auto", "low", "high", "original"];
const NO_FILE_IDS: &str =
    "is refused: this server stores no files. Send the content itself, as a `data:` URL";

/// An item of an input that only a key opens.
#[derive(Debug)]
pub(crate) struct SealedItem {
    /// Its place in the input.
    pub(crate) index: usize,
    /// The path of its content.
    pub(crate) path: String,
    /// Its content.
    pub(crate) content: String,
}

/// Reads the input of a request, and adds to `sealed` what is to be opened in it.
pub(crate) fn read_input(at: &At<'_>, sealed: &mut Vec<SealedItem>) -> Result<Vec<Item>, Invalid> {
    if at.is_string() {
        return Ok(vec![message(
            "user",
            vec![Part::InputText { text: at.string()? }],
            None,
        )]);
    }
    if !at.json.get().starts_with('[') {
        return Err(at.must_be("a string or an array of items"));
    }
    let elements = at.array()?;
    if elements.is_empty() {
        return Err(at.must_be("a string, or an array of at least one item"));
    }
    let mut items = Vec::with_capacity(elements.len());
    for (index, element) in elements.iter().enumerate() {
        let item = match read_compaction(element)? {
            Some(content) => {
                let path = format!("{}.encrypted_content", element.path);
                sealed.push(SealedItem {
                    index,
                    path,
                    content,
                });
                // Its place, until it is opened.
                message("user", Vec::new(), None)
            }
            None => read_item(element)?,
        };
        items.push(item);
    }
    Ok(items)
}

/// Reads the content of a compaction; `None` if the item is another one.
fn read_compaction(at: &At<'_>) -> Result<Option<String>, Invalid> {
    let mut object = at.object()?;
    let is_compaction = match object.take("type") {
        Some(kind) => kind.is_string() && kind.string()? == "compaction",
        None => false,
    };
    if !is_compaction {
        return Ok(None);
    }
    // The id is given anew: an item has the id of its place.
    object.take_string("id")?;
    object.take_string("created_by")?;
    let content = object.need_string("encrypted_content")?;
    object.finish()?;
    Ok(Some(content))
}

fn message(role: &str, content: Vec<Part>, phase: Option<String>) -> Item {
    Item::Message {
        id: String::new(),
        status: ItemStatus::Completed,
        role: role.to_owned(),
        content,
        phase,
    }
}

/// Reads an item.
pub(crate) fn read_item(at: &At<'_>) -> Result<Item, Invalid> {
    let mut object = at.object()?;
    let kind = object.take("type");
    let item = match kind.as_ref().map(At::string).transpose()?.as_deref() {
        // A message may leave its type out.
        None | Some("message") => read_message(&mut object)?,
        Some("function_call") => {
            let item = Item::FunctionCall {
                id: String::new(),
                status: read_status(&mut object)?,
                call_id: object.need_string("call_id")?,
                name: object.need_string("name")?,
                arguments: object.need_string("arguments")?,
            };
            // The id is given anew: an item has the id of its place.
            object.take_string("id")?;
            item
        }
        Some("function_call_output") => {
            object.take_string("id")?;
            Item::FunctionCallOutput {
                id: String::new(),
                status: read_status(&mut object)?,
                call_id: object.need_string("call_id")?,
                output: read_output(&object.need("output")?)?,
            }
        }
        Some("reasoning") => read_reasoning(&mut object)?,
        Some("mcp_call") => read_call(at, &mut object)?,
        Some("mcp_list_tools") => read_list(&mut object)?,
        Some("mcp_approval_request") => read_question(&mut object)?,
        Some("mcp_approval_response") => read_answer(&mut object)?,
        Some(
            other @ ("item_reference"
            | "compaction"
            | "file_search_call"
            | "web_search_call"
            | "computer_call"
            | "computer_call_output"
            | "image_generation_call"
            | "code_interpreter_call"
            | "local_shell_call"
            | "local_shell_call_output"
            | "shell_call"
            | "shell_call_output"
            | "apply_patch_call"
            | "apply_patch_call_output"
            | "custom_tool_call"
            | "custom_tool_call_output"),
        ) => {
            let path = format!("{}.type", at.path);
            let message = format!(
                "`{path}` may not be \"{other}\": this server serves no such items. Leave the item out"
            );
            return Err(Invalid::unsupported(path, message));
        }
        Some(_) => {
            let at = kind.as_ref().unwrap_or(at);
            return Err(at.one_of(&[
                "message",
                "function_call",
                "function_call_output",
                "reasoning",
                "compaction",
                "mcp_call",
                "mcp_list_tools",
                "mcp_approval_request",
                "mcp_approval_response",
            ]));
        }
    };
    object.finish()?;
    Ok(item)
}

/// Reads a status, which every item of an input may have. Only a whole item is input.
fn read_status(object: &mut Object<'_>) -> Result<ItemStatus, Invalid> {
    let Some(at) = object.take("status") else {
        return Ok(ItemStatus::Completed);
    };
    match &*at.string()? {
        "completed" => Ok(ItemStatus::Completed),
        "incomplete" => Ok(ItemStatus::Incomplete),
        "in_progress" => Ok(ItemStatus::InProgress),
        _ => Err(at.one_of(&["in_progress", "completed", "incomplete"])),
    }
}

fn read_message(object: &mut Object<'_>) -> Result<Item, Invalid> {
    object.take_string("id")?;
    read_status(object)?;
    let role = object.need("role")?;
    let role_name = role.string()?;
    if !ROLES.contains(&&*role_name) {
        return Err(role.one_of(&ROLES));
    }
    let phase = match object.take("phase") {
        None => None,
        Some(at) if role_name != "assistant" => {
            return Err(at.unsupported("is a field of assistants' messages: leave it out"));
        }
        Some(at) => {
            let phase = at.string()?;
            if !PHASES.contains(&&*phase) {
                return Err(at.one_of(&PHASES));
            }
            Some(phase)
        }
    };
    let content = object.need("content")?;
    let is_model = role_name == "assistant";
    let parts = if content.is_string() {
        let text = content.string()?;
        vec![if is_model {
            Part::output_text(text)
        } else {
            Part::InputText { text }
        }]
    } else if content.json.get().starts_with('[') {
        let parts = content.array()?;
        let read = |part: &At<'_>| read_part(part, is_model);
        parts.iter().map(read).collect::<Result<_, _>>()?
    } else {
        return Err(content.must_be("a string or an array of parts"));
    };
    Ok(message(&role_name, parts, phase))
}

fn read_part(at: &At<'_>, is_model: bool) -> Result<Part, Invalid> {
    let mut object = at.object()?;
    let kind = object.need("type")?;
    let part = match (&*kind.string()?, is_model) {
        ("input_text", false) => Part::InputText {
            text: object.need_string("text")?,
        },
        ("input_image", false) => read_image(&mut object)?,
        ("input_file", false) => read_file(&mut object)?,
        ("output_text", true) => {
            let text = object.need_string("text")?;
            // Shown with the text; the model reads the text alone.
            for shown in ["annotations", "logprobs"] {
                if let Some(list) = object.take(shown) {
                    list.array()?;
                    list.readable()?;
                }
            }
            Part::output_text(text)
        }
        ("refusal", true) => Part::Refusal {
            refusal: object.need_string("refusal")?,
        },
        ("input_audio", false) => {
            return Err(kind.unsupported(
                "may not be \"input_audio\": the Responses wire here takes no audio. Use \
                 /v1/chat/completions",
            ));
        }
        (_, false) => return Err(kind.one_of(&["input_text", "input_image", "input_file"])),
        (_, true) => return Err(kind.one_of(&["output_text", "refusal"])),
    };
    object.finish()?;
    Ok(part)
}

fn read_image(object: &mut Object<'_>) -> Result<Part, Invalid> {
    if let Some(id) = object.take("file_id") {
        return Err(id.unsupported(NO_FILE_IDS));
    }
    let url = object.need("image_url")?;
    let image_url = url.string()?;
    if !["https://", "http://", "data:"]
        .iter()
        .any(|scheme| image_url.starts_with(scheme))
    {
        let message = format!(
            "`{}` must be a URL that begins with https:// or data:",
            url.path
        );
        return Err(Invalid::field("invalid_value", url.path, message));
    }
    let detail = match object.take("detail") {
        None => "auto".to_owned(),
        Some(at) => {
            let detail = at.string()?;
            if !DETAILS.contains(&&*detail) {
                return Err(at.one_of(&DETAILS));
            }
            detail
        }
    };
    Ok(Part::InputImage { image_url, detail })
}

fn read_file(object: &mut Object<'_>) -> Result<Part, Invalid> {
    if let Some(id) = object.take("file_id") {
        return Err(id.unsupported(NO_FILE_IDS));
    }
    if let Some(url) = object.take("file_url") {
        return Err(url.unsupported(
            "is refused: this server fetches no files. Send the content in `file_data`",
        ));
    }
    if let Some(detail) = object.take("detail") {
        return Err(detail.unsupported("is refused for files: leave it out"));
    }
    Ok(Part::InputFile {
        filename: object.take_string("filename")?,
        file_data: object.need_string("file_data")?,
    })
}

fn read_output(at: &At<'_>) -> Result<Output, Invalid> {
    if at.is_string() {
        return Ok(Output::Text(at.string()?));
    }
    if !at.json.get().starts_with('[') {
        return Err(at.must_be("a string or an array of parts"));
    }
    let parts = at.array()?;
    let read = |part: &At<'_>| read_part(part, false);
    Ok(Output::Parts(
        parts.iter().map(read).collect::<Result<_, _>>()?,
    ))
}

fn read_reasoning(object: &mut Object<'_>) -> Result<Item, Invalid> {
    object.take_string("id")?;
    let status = read_status(object)?;
    if let Some(sealed) = object.take("encrypted_content") {
        return Err(sealed.unsupported(
            "is refused: this server did not seal it and cannot open it. Leave the item out",
        ));
    }
    let texts = |at: Option<At<'_>>, kind: &str| -> Result<Vec<String>, Invalid> {
        let Some(at) = at else {
            return Ok(Vec::new());
        };
        let mut texts = Vec::new();
        for part in at.array()? {
            let mut part_fields = part.object()?;
            let own = part_fields.need("type")?;
            if own.string()? != kind {
                return Err(own.one_of(&[kind]));
            }
            texts.push(part_fields.need_string("text")?);
            part_fields.finish()?;
        }
        Ok(texts)
    };
    let summary = object.take("summary");
    if let Some(first) = &summary
        && !texts(Some(first.clone()), "summary_text")?.is_empty()
    {
        return Err(first.unsupported(
            "must be empty: the model here reads its reasoning itself, in `content`",
        ));
    }
    let content = texts(object.take("content"), "reasoning_text")?;
    Ok(Item::Reasoning {
        id: String::new(),
        status,
        summary: Vec::new(),
        content: content
            .into_iter()
            .map(|text| Part::ReasoningText { text })
            .collect(),
    })
}
