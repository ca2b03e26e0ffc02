//! Tests how bodies share the bound, without a network.

use tokio::time::advance;

use super::*;

fn owner(name: &str) -> Owner {
    Owner::Network([192, 0, 2, name.as_bytes()[0]].into())
}

async fn taken(bodies: &BodyBytes, name: &str, bytes: u64) -> HeldBytes {
    let mut body = bodies.begin(owner(name));
    body.grow(bytes).await.unwrap();
    body
}

async fn status(bodies: &BodyBytes, name: &str, bytes: u64) -> u16 {
    let mut body = bodies.begin(owner(name));
    body.grow(bytes).await.unwrap_err().status.as_u16()
}

#[tokio::test(start_paused = true)]
async fn an_owner_has_its_share_and_others_have_theirs() {
    let bodies = BodyBytes::new(64, 24, 10);
    let _first = taken(&bodies, "a", 20).await;
    assert_eq!(status(&bodies, "a", 5).await, 429);
    let _second = taken(&bodies, "b", 20).await;
    assert_eq!(
        status(&bodies, "c", 20).await,
        503,
        "it fits, and would leave nothing to the next"
    );
    let _third = taken(&bodies, "c", 10).await;
    let _fourth = taken(&bodies, "d", 5).await;
}

#[tokio::test(start_paused = true)]
async fn one_body_of_the_limit_fits_whatever_the_shares_are() {
    let bodies = BodyBytes::new(1, 1, 100);
    let whole = taken(&bodies, "a", 100).await;
    drop(whole);
    let again = taken(&bodies, "a", 100).await;
    drop(again);
    assert!(bodies.0.lock().owners.is_empty(), "nobody is remembered");
    assert_eq!(bodies.0.lock().all, 0);
}

#[tokio::test(start_paused = true)]
async fn bytes_that_are_given_back_go_to_those_who_wait() {
    let bodies = BodyBytes::new(100, 50, 10);
    let held = taken(&bodies, "a", 50).await;
    let (large, small) = tokio::join!(
        async {
            let mut body = bodies.begin(owner("a"));
            body.grow(40).await.map(|()| body)
        },
        async {
            tokio::task::yield_now().await;
            drop(held);
            taken(&bodies, "a", 10).await
        },
    );
    assert!(large.is_ok());
    drop((large, small));
    assert_eq!(bodies.0.lock().all, 0);
}

#[tokio::test(start_paused = true)]
async fn a_body_that_was_given_up_while_it_waited_holds_nothing() {
    let bodies = BodyBytes::new(100, 50, 10);
    let held = taken(&bodies, "a", 50).await;
    let mut given_up = bodies.begin(owner("a"));
    {
        let grow = given_up.grow(10);
        tokio::pin!(grow);
        let waiting = futures_util::poll!(grow.as_mut());
        assert!(waiting.is_pending());
        // The grant is made before the waiting future is polled again.
        drop(held);
        assert_eq!(bodies.0.lock().all, 10);
    }
    assert_eq!(bodies.0.lock().all, 0);
    advance(WAIT).await;
    let mut whole = taken(&bodies, "a", 20).await;
    whole.grow(30).await.unwrap();
    drop(whole);
    assert_eq!(bodies.0.lock().all, 0);
}

#[tokio::test(start_paused = true)]
async fn those_who_stopped_waiting_are_forgotten_before_anything_is_given_back() {
    let bodies = BodyBytes::new(100, 50, 10);
    let _held = taken(&bodies, "a", 50).await;
    for _ in 0..3 {
        assert_eq!(status(&bodies, "a", 10).await, 429);
    }
    assert!(bodies.0.lock().waiting.len() <= 1);
}
