//! The broker's lines on the connection that carries programs' messages.

use baton_nats::programs::intake::{Address, Decoder, Frame, MAX_LINE, Message, ProtocolError};

use crate::splits::splits;

/// The greatest payload that is kept, in bytes.
const MAX_PAYLOAD: usize = 512;
/// The ids in the subject of a good message.
const TENANT: &str = "01890a5d-ac96-774b-bcce-b302099a8057";
const KEY: &str = "01890a5d-ac96-774b-bcce-b302099a8058";

/// Checks that any bytes yield the same frames however they arrive, and that no more of them is
/// buffered than one line or one payload.
///
/// A message between two good ones may have any subject, reply and payload that the server lets
/// through. It must arrive unchanged and under its own number, and must lead nowhere unless its
/// subject has the subscribed form. A block of headers ends the connection, because the server was
/// asked to leave headers out.
pub fn intake(data: &[u8]) {
    let [whole, others @ ..] = splits(data);
    let expected = read(&whole);
    for pieces in others {
        assert_eq!(read(&pieces), expected, "however it is cut");
    }
    between_good_ones(data);
}

fn read(pieces: &[&[u8]]) -> (Vec<Frame>, Option<ProtocolError>) {
    let mut decoder = Decoder::new(MAX_PAYLOAD);
    let mut frames = Vec::new();
    for piece in pieces {
        decoder.buffer().extend_from_slice(piece);
        loop {
            match decoder.decode() {
                Ok(Some(frame)) => frames.push(frame),
                Ok(None) => break,
                Err(error) => return (frames, Some(error)),
            }
        }
        assert!(decoder.pending() <= MAX_LINE.max(MAX_PAYLOAD + 2));
    }
    (frames, None)
}

/// Uses the bytes as a subject, a reply and a payload.
fn between_good_ones(data: &[u8]) {
    let parts = |byte: &u8| matches!(byte, b' ' | b'\t' | b'\r' | b'\n');
    let mut words = data.split(parts).filter(|word| !word.is_empty());
    let (Some(subject), reply) = (words.next(), words.next()) else {
        return;
    };
    let payload = &data[..data.len().min(MAX_PAYLOAD)];
    let good = format!("MSG history.{TENANT}.{KEY} 3 2\r\n{{}}\r\n");
    let reply = reply
        .map(|reply| [reply, b" "].concat())
        .unwrap_or_default();
    let size = payload.len().to_string();
    let line = [
        b"MSG ",
        subject,
        b" 2 ",
        &reply,
        size.as_bytes(),
        b"\r\n",
        payload,
        b"\r\n",
    ];
    let stream = [good.as_bytes(), &line.concat(), good.as_bytes()].concat();
    let (frames, error) = read(&[&stream]);
    let [
        Frame::Message(first),
        Frame::Message(strange),
        Frame::Message(last),
    ] = &frames[..]
    else {
        // Longer than any line of a server.
        assert_eq!(error, Some(ProtocolError::LongLine));
        return;
    };
    assert_eq!(error, None);
    assert_eq!(first, last);
    assert!(matches!(address(first), Some(Address::History { .. })));
    assert_eq!((strange.sid, &*strange.subject), (2, subject));
    assert_eq!(&*strange.payload, payload);
    if let Some(address) = address(strange) {
        let Address::Control { tenant, key, verb } = address else {
            panic!("of another subscription")
        };
        let spelled = format!("control.{tenant}.{key}.{}", verb.as_str());
        assert_eq!(spelled.as_bytes(), subject);
    }
    let headers = [b"H", &line.concat()[..]].concat();
    let (frames, error) = read(&[&headers]);
    assert_eq!((frames, error), (vec![], Some(ProtocolError::UnknownWord)));
}

fn address(message: &Message) -> Option<Address> {
    Address::read(message.sid, &message.subject)
}
