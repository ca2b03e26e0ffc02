//! Messages in a run's log, from any client that may publish there.

use baton_protocol::Event;

/// Checks that a decoded event is written as one line, and decoded again as the same.
pub fn event(data: &[u8]) {
    let lines: Vec<&[u8]> = Event::lines(data).collect();
    assert!(
        lines
            .iter()
            .all(|line| !line.is_empty() && !line.contains(&b'\n'))
    );
    for event in lines
        .into_iter()
        .filter_map(|line| Event::decode(line).ok())
    {
        let mut written = Vec::new();
        event.encode_into(&mut written);
        let mut lines = Event::lines(&written);
        let again = Event::decode(lines.next().expect("a line")).expect("what is written is read");
        assert!(lines.next().is_none(), "an event is one line");
        assert_eq!(
            (again.id, again.prev, again.run_id, again.step, &again.data),
            (event.id, event.prev, event.run_id, event.step, &event.data)
        );
        let mut once_more = Vec::new();
        again.encode_into(&mut once_more);
        assert_eq!(once_more, written);
    }
}
