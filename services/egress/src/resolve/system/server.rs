//! A name server on loopback, which shows the queries that are sent for a name.

use std::{
    collections::HashSet,
    net::Ipv4Addr,
    sync::{Arc, Mutex},
};

use hickory_resolver::{
    Hosts,
    config::{ConnectionConfig, NameServerConfig, ResolverConfig, ResolverOpts},
};
use outrider_model::{address::Policy, url::WebhookUrl};
use outrider_rpc::NoName;
use proptest::{
    prelude::*,
    test_runner::{Config, TestRunner},
};
use tokio::net::UdpSocket;

use crate::resolve::{
    asker::Asker,
    files::resolver,
    lookup::{Bounds, NoAddress, absolute},
};

/// Its answer to an IPv4 query. It has no IPv6.
#[derive(Clone, Copy)]
enum Reply {
    /// This many addresses, valid for this many seconds.
    Addresses(u8, u8),
    /// An endless chain of other names.
    Chain,
    /// One address, for this name only.
    Only(&'static str),
}

/// The queried names, as they arrived over the wire.
#[derive(Clone, Default)]
struct Asked(Arc<Mutex<Vec<String>>>);

impl Asked {
    fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}

/// Returns a resolver that asks only a server with these answers.
async fn serve(reply: Reply) -> (Asker, Asked) {
    serve_searching(reply, &[]).await
}

async fn serve_searching(reply: Reply, search: &[&str]) -> (Asker, Asked) {
    let search: Vec<_> = search.iter().map(|domain| absolute(domain).unwrap()).collect();
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap();
    let asked = Asked::default();
    let seen = asked.clone();
    tokio::spawn(async move {
        let mut packet = [0; 4096];
        while let Ok((length, peer)) = socket.recv_from(&mut packet).await {
            let answer = answer(&packet[..length], reply, &seen);
            socket.send_to(&answer, peer).await.unwrap();
        }
    });
    let mut connection = ConnectionConfig::udp();
    connection.port = address.port();
    let server = NameServerConfig::new(address.ip(), true, vec![connection]);
    let config = ResolverConfig::from_parts(None, Vec::new(), vec![server]);
    let resolver = resolver(config, ResolverOpts::default(), &Arc::new(Hosts::default())).unwrap();
    (Asker::new(resolver, &search, Bounds { names: 16, addresses: 4 }), asked)
}

fn answer(query: &[u8], reply: Reply, asked: &Asked) -> Vec<u8> {
    let mut labels = Vec::new();
    let mut at = 12;
    while query[at] != 0 {
        let end = at + 1 + usize::from(query[at]);
        labels.push(String::from_utf8(query[at + 1..end].to_vec()).unwrap());
        at = end;
    }
    let question = &query[12..at + 5];
    let is_v4 = query[at + 2] == 1;
    asked.0.lock().unwrap().push(labels.join("."));
    let mut records = Vec::new();
    match reply {
        Reply::Addresses(count, seconds) if is_v4 => {
            for number in 0..count {
                records.push(
                    [&[0xc0, 12, 0, 1, 0, 1, 0, 0, 0, seconds, 0, 4][..], &[8, 8, 8, number]]
                        .concat(),
                );
            }
        }
        Reply::Only(name) if is_v4 && labels.join(".") == name => {
            records.push([&[0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 0, 0, 4][..], &[10, 0, 0, 7]].concat());
        }
        Reply::Addresses(..) | Reply::Only(_) => {}
        Reply::Chain => records
            .push([&[0xc0, 12, 0, 5, 0, 1, 0, 0, 0, 60, 0, 4][..], &[1, b'x', 0xc0, 12]].concat()),
    }
    let counts = [0, 1, 0, u8::try_from(records.len()).unwrap(), 0, 0, 0, 0];
    [&query[..2], &[0x81, 0x80], &counts, question, &records.concat()].concat()
}

/// Generates labels, most of which are valid.
fn label() -> impl Strategy<Value = String> {
    prop_oneof![
        "[a-zA-Z0-9_-]{1,63}",
        "[a-z0-9]{1,20}",
        "_[a-z0-9_-]{0,8}",
        "[a-z]{1,4}(---|--|_)[a-z]{1,4}",
        "xn--[a-z0-9-]{1,12}",
        "[a-z\u{e0}-\u{f6}\u{f8}-\u{ff}\u{3b1}-\u{3c9}\u{4e00}-\u{4eff}]{1,12}",
    ]
}

/// Every name that is accepted when an endpoint is saved is queried, and no other name is.
#[test]
fn what_is_asked_for_is_exactly_the_name_that_the_policy_judged() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (asker, asked) = runtime.block_on(serve(Reply::Addresses(1, 0)));
    let accepted = Mutex::new(HashSet::new());
    let check = |text: &str| {
        let policy = Policy::default();
        let Ok(url) = WebhookUrl::parse(text, &policy) else { return Ok(()) };
        let Ok(outrider_model::address::Judged::Name(name)) = policy.judge(url.host(), url.port())
        else {
            return Ok(());
        };
        let name = name.as_str().to_owned();
        prop_assert_eq!(url.host(), &name);
        let found = runtime.block_on(asker.ask(&name));
        prop_assert_eq!(found, Ok(vec![Ipv4Addr::new(8, 8, 8, 0).into()]), "{}", text);
        let questions = asked.take();
        prop_assert_eq!(questions.len(), 2, "one for each family: {:?}", questions);
        prop_assert!(
            questions.iter().all(|question| *question == name),
            "{} asks for {:?}",
            text,
            questions
        );
        accepted.lock().unwrap().insert(name);
        Ok(())
    };
    let known = [
        "https://a_b.example.com/",
        "https://_dmarc.example.com/",
        "https://a_.example.com./",
        "https://__.example.com/",
        "https://r3---sn-abc.example.com/",
        "https://A-B.Example.COM/",
        "https://b\u{fc}cher.example/",
        "https://xn--bcher-kva.example/",
        "https://1.2.3.4.example.com/",
        "https://0.example.com/",
        "https://example.com./",
    ];
    for text in known {
        check(text).unwrap();
    }
    let long = [63, 63, 63, 61].map(|length| "a".repeat(length)).join(".");
    check(&format!("https://{long}/")).unwrap();
    assert_eq!(
        accepted.lock().unwrap().len(),
        known.len(),
        "each of them is accepted, one of them is another's canonical form"
    );
    let hosts = (
        proptest::collection::vec(label(), 1..5),
        "(com|example|dev|test|invalid|Shop|xn--p1ai|a_b|[0-9]{1,3})[.]?",
    );
    let mut runner = TestRunner::new(Config { cases: 400, ..Config::default() });
    runner
        .run(&hosts, |(labels, last)| check(&format!("https://{}.{last}/", labels.join("."))))
        .unwrap();
    let accepted = accepted.lock().unwrap();
    assert!(accepted.len() > 50, "{} names of those tried were accepted", accepted.len());
}

#[tokio::test]
async fn answers_are_remembered_while_they_are_valid() {
    for (seconds, expected) in [(0, 4), (60, 2)] {
        let (asker, asked) = serve(Reply::Addresses(4, seconds)).await;
        for _ in 0..2 {
            assert_eq!(asker.ask("a.example.com").await.unwrap().len(), 4);
        }
        assert_eq!(asked.take().len(), expected, "valid for {seconds} s");
    }
}

#[tokio::test]
async fn names_with_too_many_addresses_or_too_long_a_chain_are_not_resolved() {
    let (asker, asked) = serve(Reply::Addresses(5, 60)).await;
    for _ in 0..2 {
        let refused = asker.ask("a.example.com").await;
        assert_eq!(refused, Err(NoAddress::Unknown(NoName::TooMany)));
    }
    assert_eq!(asked.take().len(), 2, "it is remembered");
    let (asker, asked) = serve(Reply::Chain).await;
    assert!(matches!(asker.ask("a.example.com").await, Err(NoAddress::Unknown(_))));
    let questions = asked.take();
    assert!((4..=32).contains(&questions.len()), "{questions:?}");
}

#[tokio::test]
async fn a_name_of_one_label_is_looked_for_in_the_search_list_and_no_other_name_is() {
    let (asker, asked) = serve_searching(
        Reply::Only("receiver.b.example"),
        &["a.example.", "b.example", "c.example"],
    )
    .await;
    assert_eq!(asker.look_up("receiver").await, Ok(vec![Ipv4Addr::new(10, 0, 0, 7).into()]));
    let mut questions = asked.take();
    questions.dedup();
    assert_eq!(questions, ["receiver", "receiver.a.example", "receiver.b.example"]);
    assert!(matches!(asker.look_up("receiver.b").await, Err(NoAddress::Unknown(_))));
    assert!(asked.take().iter().all(|question| question == "receiver.b"));
    let many: Vec<String> = (0..20).map(|number| format!("d{number}.example")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    let (asker, asked) = serve_searching(Reply::Only("elsewhere"), &many).await;
    assert!(asker.look_up("receiver").await.is_err());
    let questions: HashSet<String> = asked.take().into_iter().collect();
    assert_eq!(questions.len(), 7, "itself and six domains: {questions:?}");
}
