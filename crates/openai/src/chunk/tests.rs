use super::*;

fn delta(frame: &str) -> ChunkDelta<'_> {
    let mut chunk: ChatChunk<'_> = serde_json::from_str(frame).unwrap();
    chunk.choices.remove(0).delta
}

#[test]
fn plain_text_is_borrowed_and_escaped_text_is_unescaped() {
    let frame = r#"{"id":"c","choices":[{"index":0,"delta":{"role":"assistant","content":"hi","x":[1]},"finish_reason":null}],"usage":null}"#;
    let chunk: ChatChunk<'_> = serde_json::from_str(frame).unwrap();
    let delta = &chunk.choices[0].delta;
    assert!(matches!(delta.content, Some(Cow::Borrowed("hi"))));
    assert_eq!(delta.rest[0].name, "x");
    assert_eq!(delta.rest[0].json.get(), "[1]");
    assert!(matches!(chunk.id, Some(Cow::Borrowed("c"))));

    let frame = r#"{"choices":[{"delta":{"content":"a\nb"},"finish_reason":"stop"}]}"#;
    let chunk: ChatChunk<'_> = serde_json::from_str(frame).unwrap();
    assert_eq!(chunk.choices[0].delta.content.as_deref(), Some("a\nb"));
    assert_eq!(chunk.choices[0].finish_reason.as_deref(), Some("stop"));
}

#[test]
fn nulls_and_missing_keys_are_an_empty_addition() {
    for frame in [
        r#"{"choices":[{"delta":null}]}"#,
        r#"{"choices":[{}]}"#,
        r#"{"choices":[{"delta":{"content":null,"tool_calls":null}}]}"#,
        r#"{"choices":[{"delta":{"content":[],"tool_calls":[null]}}]}"#,
    ] {
        assert_eq!(delta(frame), ChunkDelta::default(), "{frame}");
    }
    let chunk: ChatChunk<'_> = serde_json::from_str(r#"{"choices":null}"#).unwrap();
    assert!(chunk.choices.is_empty());
}

#[test]
fn both_names_of_reasoning_are_read_once() {
    let frame = r#"{"choices":[{"delta":{"reasoning":"b","reasoning_content":"a"}}]}"#;
    assert_eq!(delta(frame).reasoning.as_deref(), Some("a"));
}

#[test]
fn content_is_read_in_whichever_shape_it_comes() {
    for (json, content, reasoning) in [
        (
            r#"{"content":[{"type":"text","text":"hello"}]}"#,
            Some("hello"),
            None,
        ),
        (r#"{"content":["hel",{"text":"lo"}]}"#, Some("hello"), None),
        (
            r#"{"content":{"type":"output_text","text":"hello"}}"#,
            Some("hello"),
            None,
        ),
        (
            r#"{"content":[{"type":"thinking","thinking":[{"type":"text","text":"hm"}]},{"type":"text","text":"hello"}]}"#,
            Some("hello"),
            Some("hm"),
        ),
        (
            r#"{"content":[{"type":"reasoning","text":"hm"}]}"#,
            None,
            Some("hm"),
        ),
        (
            r#"{"content":"hello","thinking":"hm"}"#,
            Some("hello"),
            Some("hm"),
        ),
        (r#"{"content":42}"#, Some("42"), None),
    ] {
        let frame = format!(r#"{{"choices":[{{"delta":{json}}}]}}"#);
        let delta = delta(&frame);
        assert_eq!(delta.content.as_deref(), content, "{json}");
        assert_eq!(delta.reasoning.as_deref(), reasoning, "{json}");
    }
    let frame =
        r#"{"choices":[{"delta":{"content":[{"type":"image_url","image_url":{"url":"u"}}]}}]}"#;
    let part = &delta(frame).parts[0];
    assert_eq!(part.name, "images");
    assert_eq!(
        part.json.get(),
        r#"{"type":"image_url","image_url":{"url":"u"}}"#
    );
}

#[test]
fn a_message_stands_in_for_a_delta_and_never_adds_to_one() {
    let frame = r#"{"choices":[{"message":{"content":"hello"}}]}"#;
    assert_eq!(delta(frame).content.as_deref(), Some("hello"));
    let frame = r#"{"choices":[{"delta":{"content":"lo"},"message":{"content":"hello"}}]}"#;
    assert_eq!(delta(frame).content.as_deref(), Some("lo"));
    let frame = r#"{"choices":[{"text":"hello"}]}"#;
    assert_eq!(delta(frame).content.as_deref(), Some("hello"));
}

#[test]
fn what_is_not_needed_is_left_aside() {
    let frame = r#"{"id":7,"created":"x","object":null,"choices":[{"index":null,"delta":{"content":"hi",
        "tool_calls":[{"index":-1,"id":5,"function":{"name":"f","arguments":{"x":1}}}]}}],
        "usage":{"prompt_tokens":-1}}"#;
    let chunk: ChatChunk<'_> = serde_json::from_str(frame).unwrap();
    assert_eq!(chunk.usage, None);
    assert_eq!(chunk.choices[0].index, 0);
    let call = &chunk.choices[0].delta.tool_calls[0];
    assert_eq!((call.index, call.id.as_deref()), (None, Some("5")));
    let function = call.function.as_ref().unwrap();
    assert_eq!(function.arguments.as_deref(), Some(r#"{"x":1}"#));
}

#[test]
fn errors_are_told_from_frames_that_only_name_the_field() {
    for (frame, message) in [
        (r#"{"error":{"message":"m"}}"#, Some("m")),
        (
            r#"{"object":"error","message":"m","type":"T","code":400}"#,
            Some("m"),
        ),
        (
            r#"{"type":"error","error":{"type":"overloaded_error","message":"m"}}"#,
            Some("m"),
        ),
        (r#"{"code":"InvalidParameter","message":"m"}"#, Some("m")),
        (r#"{"detail":"m"}"#, Some("m")),
        (r#"{"error":null,"choices":[]}"#, None),
        (r#"{"error":{},"choices":[]}"#, None),
        (r#"{"error":{"message":"","code":0},"choices":[]}"#, None),
        (r#"{"message":"m","choices":[]}"#, None),
        (r#"{"type":"ping"}"#, None),
    ] {
        let chunk: ChatChunk<'_> = serde_json::from_str(frame).unwrap();
        let error = chunk.error.map(|error| error.message);
        assert_eq!(error.as_deref(), message, "{frame}");
    }
}

#[test]
fn why_it_stopped_is_a_text_or_an_object_that_says_so() {
    for (json, reason) in [
        ("\"stop\"", Some("stop")),
        (r#"{"type":"stop","matched":2}"#, Some("stop")),
        ("null", None),
        ("\"\"", None),
        ("\"null\"", None),
    ] {
        let frame = format!(r#"{{"choices":[{{"finish_reason":{json}}}]}}"#);
        let chunk: ChatChunk<'_> = serde_json::from_str(&frame).unwrap();
        assert_eq!(chunk.choices[0].finish_reason.as_deref(), reason, "{json}");
    }
}

#[test]
fn usage_is_found_wherever_it_is_put() {
    for frame in [
        r#"{"choices":[],"usage":{"prompt_tokens":7,"completion_tokens":2}}"#,
        r#"{"choices":[{"usage":{"prompt_tokens":7,"completion_tokens":2}}]}"#,
        r#"{"choices":[],"x_groq":{"id":"r","usage":{"prompt_tokens":7,"completion_tokens":2}}}"#,
    ] {
        let chunk: ChatChunk<'_> = serde_json::from_str(frame).unwrap();
        assert_eq!(chunk.usage.unwrap().total_tokens, 9, "{frame}");
    }
}
