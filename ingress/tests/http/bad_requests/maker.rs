//! Generates bad requests.

use rand::rngs::StdRng;
use rand::{Rng as _, RngExt as _, SeedableRng as _};
use reqwest::Method;
use serde_json::{Value, json};

/// The body limit in the server's configuration.
pub(super) const BODY_LIMIT: usize = 64 << 10;

/// A request, and its fault.
pub(super) struct Bad {
    pub(super) why: &'static str,
    pub(super) method: Method,
    pub(super) path: String,
    /// The path in the description; `None` for an address that it does not contain.
    pub(super) route: Option<&'static str>,
    pub(super) headers: Vec<(&'static str, Vec<u8>)>,
    pub(super) body: Vec<u8>,
}

/// The routes that take a JSON body.
const CHAT: &str = "/v1/chat/completions";
const RUNS: &str = "/v1/runs";
const RESPONSES: &str = "/v1/responses";
const COUNTS: &str = "/v1/responses/input_tokens";
const COMPACT: &str = "/v1/responses/compact";

/// Generates requests, the same from the same seed.
pub(super) struct Maker {
    random: StdRng,
    key: String,
}

impl Maker {
    /// Uses `key` for each request that needs a good one.
    pub(super) fn new(seed: u64, key: String) -> Self {
        Self {
            random: StdRng::seed_from_u64(seed),
            key,
        }
    }

    fn pick<T: Clone>(&mut self, of: &[T]) -> T {
        of[self.random.random_range(0..of.len())].clone()
    }

    fn text(&mut self, longest: usize) -> String {
        let length = self.random.random_range(1..=longest);
        (0..length)
            .map(|_| char::from_u32(self.random.random_range(0x21..0x2000)).unwrap_or('?'))
            .collect()
    }

    /// Returns a route with a good body.
    fn good(&mut self) -> (&'static str, Value) {
        let text = self.text(40);
        let message = json!([{"role": "user", "content": text}]);
        let chat = json!({"model": "m", "messages": message, "stream": true, "tools": [
            {"type": "function", "function": {"name": "f", "parameters": {}}}
        ]});
        let run = json!({"model": "m", "input": text, "metadata": {"a": "b"}, "max_turns": 3});
        let response = json!({"model": "m", "input": [
            {"role": "user", "content": [{"type": "input_text", "text": text}]}
        ], "stream": true, "metadata": {"a": "b"}});
        let count = json!({"model": "m", "input": text, "instructions": text});
        let decision = json!({"decision": "result", "result": text});
        let decisions = json!({"decisions": [
            {"approval_id": uuid::Uuid::nil(), "decision": "reject", "reason": text},
        ]});
        let limits = json!({"decision": "raise", "limits": {"max_tokens": 9}});
        let login = json!({"email": "who@example.org", "password": text});
        let key = json!({"name": "a key", "scopes": ["runs:read"]});
        self.pick(&[
            (CHAT, chat),
            (RUNS, run),
            (RESPONSES, response),
            (COUNTS, count.clone()),
            (COMPACT, count),
            ("/v1/runs/{id}/approvals/{approval}", decision),
            ("/v1/runs/{id}/approvals", decisions),
            ("/v1/runs/{id}/approvals/{approval}", limits),
            ("/v1/auth/login", login),
            ("/v1/api-keys", key),
        ])
    }

    fn post(&mut self, why: &'static str, route: &'static str, body: Vec<u8>) -> Bad {
        let content_type = self.pick(&[
            "application/json",
            "text/plain",
            "application/x-www-form-urlencoded",
            "multipart/form-data; boundary=x",
            "\u{1f4a5}",
        ]);
        Bad {
            why,
            method: Method::POST,
            path: self.fill(route),
            route: Some(route),
            headers: vec![
                ("authorization", format!("Bearer {}", self.key).into_bytes()),
                ("content-type", content_type.as_bytes().to_vec()),
            ],
            body,
        }
    }

    fn get(&mut self, why: &'static str, route: &'static str, path: String) -> Bad {
        Bad {
            why,
            method: Method::GET,
            path,
            route: Some(route),
            headers: vec![("authorization", format!("Bearer {}", self.key).into_bytes())],
            body: Vec::new(),
        }
    }

    /// Fills the route with ids that do not exist.
    fn fill(&mut self, route: &str) -> String {
        let mut path = route.to_owned();
        for name in ["{id}", "{approval}"] {
            let id = uuid::Builder::from_random_bytes(self.random.random())
                .into_uuid()
                .to_string();
            path = path.replace(name, &id);
        }
        path
    }

    pub(super) fn next(&mut self) -> Bad {
        match self.random.random_range(0..15) {
            0 => self.cut_short(),
            1 => self.garbage(),
            2 => self.too_deep(),
            3 => self.wrong_type(),
            4 => self.not_utf8(),
            5 => self.huge_number(),
            6 => self.not_text(),
            7 => self.too_large(),
            8 => self.bad_query(),
            9 => self.bad_id(),
            10 => self.bad_credential(),
            11 => self.bad_header(),
            12 => self.bad_method(),
            13 => self.nul(),
            _ => self.bad_path(),
        }
    }

    fn cut_short(&mut self) -> Bad {
        let (route, body) = self.good();
        let mut body = body.to_string().into_bytes();
        body.truncate(self.random.random_range(0..body.len()));
        self.post("a body cut short", route, body)
    }

    fn garbage(&mut self) -> Bad {
        let (route, _) = self.good();
        let mut body = vec![0; self.random.random_range(1..200)];
        self.random.fill_bytes(&mut body);
        // No JSON text begins with these.
        body[0] = self.pick(b"\0\xff}],:<=&%");
        self.post("garbage", route, body)
    }

    fn too_deep(&mut self) -> Bad {
        let (route, body) = self.good();
        let levels = self.random.random_range(200..20_000);
        let (open, close) = self.pick(&[("[", "]"), ("{\"a\":", "}")]);
        let closed = if self.random.random() { levels } else { 0 };
        let inner = if open == "[" { "" } else { "1" };
        let deep = format!("{}{inner}{}", open.repeat(levels), close.repeat(closed));
        let field = match route {
            CHAT => self.pick(&["messages", "tools", "params", "metadata", "response_format"]),
            RUNS => self.pick(&["messages", "tools", "params", "metadata"]),
            _ => "extra",
        };
        let text = body.to_string();
        let text = format!("{},\"{field}\":{deep}}}", &text[..text.len() - 1]);
        self.post("nesting", route, text.into_bytes())
    }

    fn wrong_type(&mut self) -> Bad {
        let (route, mut body) = self.good();
        let wrong = [
            json!(7),
            json!(true),
            json!([1]),
            json!({"a": 1}),
            json!(-0.5),
        ];
        let (field, value) = match route {
            CHAT => {
                let field = self.pick(&["model", "messages", "agent", "stream_options"]);
                (field, self.pick(&wrong[..3]))
            }
            RUNS => {
                let field = self.pick(&["model", "input", "agent", "lane", "thread_id"]);
                (field, self.pick(&wrong))
            }
            RESPONSES => {
                let fields = ["model", "input", "agent", "instructions", "metadata"];
                (self.pick(&fields), self.pick(&wrong))
            }
            COUNTS | COMPACT => {
                let fields = ["model", "input", "agent", "instructions"];
                (self.pick(&fields), self.pick(&wrong))
            }
            "/v1/auth/login" => (self.pick(&["email", "password"]), self.pick(&wrong)),
            "/v1/api-keys" => (self.pick(&["name"]), self.pick(&wrong)),
            _ => ("decision", self.pick(&wrong)),
        };
        body[field] = value;
        self.post("a wrong type", route, body.to_string().into_bytes())
    }

    fn not_utf8(&mut self) -> Bad {
        let (route, body) = self.good();
        let mut body = body.to_string().into_bytes();
        // Inside the first key, which every reader reads.
        body.insert(2, self.pick(&[0xc0, 0xff, 0xfe, 0x80, 0xed]));
        self.post("invalid UTF-8", route, body)
    }

    fn huge_number(&mut self) -> Bad {
        let number = self.pick(&[
            "1e999",
            "-1e999",
            "99999999999999999999999",
            "-1",
            "4294967296",
            "0.5",
            "0",
        ]);
        let field = self.pick(&["max_turns", "max_total_tokens"]);
        let number = if field == "max_total_tokens" && number == "4294967296" {
            "1e999"
        } else {
            number
        };
        let body = format!(r#"{{"model":"m","input":"x","{field}":{number}}}"#);
        self.post("a number out of range", RUNS, body.into_bytes())
    }

    /// Returns text that PostgreSQL cannot store, or that is not valid in JSON.
    fn not_text(&mut self) -> Bad {
        let lone = self.pick(&[
            r"\ud800", r"\udfff", r"\ud800x", r"\uZZZZ", r"\x41", "\n", "\0",
        ]);
        let (route, body) = self.pick(&[
            (
                CHAT,
                r#"{"model":"§","messages":[{"role":"user","content":"x"}]}"#,
            ),
            (
                CHAT,
                r#"{"model":"m","messages":[{"role":"§","content":"x"}]}"#,
            ),
            (RUNS, r#"{"model":"m","input":"§"}"#),
            (RUNS, r#"{"model":"m","input":"x","metadata":{"k":"§"}}"#),
            (RUNS, r#"{"agent":"§","input":"x"}"#),
            (
                "/v1/auth/login",
                r#"{"email":"§","password":"long enough to be one"}"#,
            ),
        ]);
        self.post(
            "text that is none",
            route,
            body.replace('§', lone).into_bytes(),
        )
    }

    /// Returns a character that is valid in JSON but not in PostgreSQL's text.
    fn nul(&mut self) -> Bad {
        let (route, body) = self.pick(&[
            (
                CHAT,
                r#"{"model":"m§","messages":[{"role":"user","content":"x"}]}"#,
            ),
            (
                CHAT,
                r#"{"agent":"m§","messages":[{"role":"user","content":"x"}]}"#,
            ),
            (RUNS, r#"{"model":"§m","input":"x"}"#),
            (RUNS, r#"{"agent":"§","input":"x"}"#),
            (
                "/v1/auth/login",
                r#"{"email":"a§@b.example","password":"long enough to be one"}"#,
            ),
            (
                "/v1/auth/register",
                r#"{"email":"a§@b.example","password":"long enough to be one"}"#,
            ),
            ("/v1/auth/refresh", r#"{"refresh_token":"§"}"#),
            ("/v1/api-keys", r#"{"name":"a§b","scopes":["runs:read"]}"#),
            ("/v1/api-keys", r#"{"name":"a","scopes":["§"]}"#),
            (
                "/v1/api-keys",
                r#"{"name":"a","scopes":["runs:read"],"models":["§"]}"#,
            ),
        ]);
        self.post("a NUL", route, body.replace('§', r"\u0000").into_bytes())
    }

    fn too_large(&mut self) -> Bad {
        let (route, _) = self.good();
        let filler = self.pick(b" [\"0");
        let body = vec![filler; self.random.random_range(BODY_LIMIT + 1..80_000)];
        self.post("a body too large", route, body)
    }

    fn bad_query(&mut self) -> Bad {
        let text = percent(self.text(30).as_bytes());
        let value = self.pick(&[
            "",
            "-1",
            "0",
            "101",
            "1e3",
            "99999999999999999999",
            "%00",
            "%ff%fe",
            "+",
            "true",
        ]);
        let id = "01890a5d-ac96-774b-bcce-b302099a8057";
        let (route, path) = match self.random.random_range(0..7) {
            0 => (RUNS, format!("{RUNS}?limit={value}")),
            1 => (RUNS, format!("{RUNS}?cursor=x{value}{text}")),
            2 => (RUNS, format!("{RUNS}?status=x{text}")),
            3 => (RUNS, format!("{RUNS}?no_such={value}")),
            4 => (
                "/v1/runs/{id}",
                format!("/v1/runs/{id}?wait=x{value}{text}"),
            ),
            5 => {
                let name = self.pick(&["from", "to", "group_by", "cursor", "limit"]);
                ("/v1/usage", format!("/v1/usage?{name}=x{value}{text}"))
            }
            _ => (
                "/v1/runs/{id}/events",
                format!("/v1/runs/{id}/events?after=x{value}{text}"),
            ),
        };
        // A plus is a space in a query, and a space is no number.
        self.get("a bad query", route, path)
    }

    fn bad_id(&mut self) -> Bad {
        let id = match self.random.random_range(0..5) {
            0 => percent(self.text(60).as_bytes()),
            1 => self
                .pick(&[
                    "%00",
                    "%ff",
                    "%2e%2e%2f",
                    "%0d%0aX:y",
                    "null",
                    "%27%20OR%201=1--",
                    "%F0%9F%92%A5",
                ])
                .to_owned(),
            2 => "a".repeat(self.random.random_range(1..6_000)),
            3 => uuid::Builder::from_random_bytes(self.random.random())
                .into_uuid()
                .to_string(),
            _ => format!("chatcmpl-{}", self.random.random::<u128>()),
        };
        let route = self.pick(&[
            "/v1/runs/{id}",
            "/v1/runs/{id}/events",
            "/v1/runs/{id}/approvals",
        ]);
        let path = route.replace("{id}", &id);
        self.get("a bad id", route, path)
    }

    fn bad_credential(&mut self) -> Bad {
        let mut noise = vec![0; self.random.random_range(1..300)];
        self.random.fill_bytes(&mut noise);
        // Keeps the bytes that HTTP allows: all but control characters.
        for byte in &mut noise {
            if *byte < 0x20 || *byte == 0x7f {
                *byte = b'~';
            }
        }
        let mut changed = self.key.clone().into_bytes();
        let at = self.random.random_range(0..changed.len());
        changed[at] = if changed[at] == b'x' { b'y' } else { b'x' };
        let bearer = |key: &[u8]| [b"Bearer ", key].concat();
        let jwt = b"eyJhbGciOiJub25lIn0.eyJzdWIiOiJhIn0.".to_vec();
        let value = match self.random.random_range(0..6) {
            0 => noise,
            1 => bearer(&noise),
            2 => bearer(&changed),
            3 => bearer(&jwt),
            4 => b"Basic dXNlcjpwYXNz".to_vec(),
            _ => bearer(format!("bt_test_{}", percent(self.text(40).as_bytes())).as_bytes()),
        };
        let (route, path) = self.pick(&[
            (RUNS, RUNS),
            ("/v1/models", "/v1/models"),
            ("/v1/auth/me", "/v1/auth/me"),
        ]);
        let mut bad = self.get("a bad credential", route, path.to_owned());
        let carrier = self.pick(&["authorization", "x-api-key"]);
        bad.headers = vec![(carrier, value)];
        bad
    }

    fn bad_header(&mut self) -> Bad {
        let id = "01890a5d-ac96-774b-bcce-b302099a8057";
        let noise = [b"x".as_slice(), &[0xff, 0x80], self.text(200).as_bytes()].concat();
        let noise: Vec<u8> = noise
            .into_iter()
            .filter(|byte| *byte >= 0x20 && *byte != 0x7f)
            .collect();
        if self.random.random() {
            let mut bad = self.get(
                "a bad cursor",
                "/v1/runs/{id}/events",
                format!("/v1/runs/{id}/events"),
            );
            bad.headers.push(("last-event-id", noise));
            return bad;
        }
        let (route, body) = (
            CHAT,
            br#"{"model":"m","messages":[{"role":"user","content":"x"}]}"#,
        );
        let mut bad = self.post("a bad Idempotency-Key", route, body.to_vec());
        let key = self.pick(&[
            Vec::new(),
            b"two words".to_vec(),
            vec![b'k'; 256],
            vec![0xc3, 0xa4],
        ]);
        bad.headers.push(("idempotency-key", key));
        bad.headers.push(("traceparent", noise.clone()));
        bad.headers.push(("x-request-id", noise));
        bad
    }

    fn bad_method(&mut self) -> Bad {
        let (path, allowed) = self.pick(&[
            (CHAT, ["POST", "POST"]),
            (RUNS, ["GET", "POST"]),
            ("/v1/models", ["GET", "HEAD"]),
            ("/v1/auth/login", ["POST", "POST"]),
        ]);
        let methods = [
            "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "PROPFIND", "get", "X-\u{7e}", "POST",
        ];
        let method = loop {
            let method = self.pick(&methods);
            if !allowed.contains(&method) {
                break method;
            }
        };
        let mut bad = self.get("a method that is not taken", path, path.to_owned());
        bad.method = Method::from_bytes(method.as_bytes()).unwrap();
        bad.route = None;
        bad
    }

    fn bad_path(&mut self) -> Bad {
        let text = percent(self.text(80).as_bytes());
        let path = match self.random.random_range(0..4) {
            0 => format!("/x{text}"),
            1 => format!("/v1/{text}/x/y/z"),
            2 => format!("/v1/runs/x/{text}/y/z"),
            _ => format!("/{}", "/".repeat(self.random.random_range(1..300))),
        };
        let mut bad = self.get("a path that leads nowhere", "", path);
        bad.route = None;
        bad
    }
}

fn percent(bytes: &[u8]) -> String {
    use std::fmt::Write as _;

    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "%{byte:02X}").unwrap();
        text
    })
}
