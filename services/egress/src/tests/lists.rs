//! The lists of the installation when dialing, with resolvers that give any answer.

use outrider_model::address::Basis;
use outrider_rpc::{DialError, Dialer, NoName};

use super::{
    dialing::{refused, verdict},
    *,
};
use crate::Stopped;

fn policy(allow: &[&str], deny: &[&str]) -> Policy {
    let entries = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect();
    Policy { allow: entries(allow), deny: entries(deny), ..Policy::default() }
}

#[tokio::test]
async fn every_answer_is_judged_by_the_lists() {
    let table: [(&'static str, &[&str], Result<(), &str>); 7] = [
        ("receiver", &["10.0.0.7"], Ok(())),
        ("hooks.shop.svc.cluster.local", &["10.96.0.7", "fd00::7"], Ok(())),
        ("receiver", &["127.0.0.1"], Err("ipv4-loopback")),
        ("receiver", &["10.0.0.7", "169.254.169.254"], Err("ipv4-metadata")),
        ("receiver", &["10.0.0.7", "::ffff:10.66.0.1"], Err("denied")),
        ("public.example.com", &["8.8.8.8", "10.0.0.7"], Err("ipv4-private")),
        ("public.example.com", &["10.20.0.7"], Ok(())),
    ];
    let lists = policy(&["receiver", "*.svc.cluster.local:443", "10.20.0.0/16"], &["10.66.0.0/16"]);
    for (name, answer, expected) in table {
        let egress = egress(permitting(lists.clone()), Answers::with(&[(name, &[answer])]));
        match (egress.examine(name, 443).await, expected) {
            (Ok(examined), expected) => {
                let bad = examined.addresses.iter().find_map(|(_, verdict)| verdict.err());
                assert_eq!(bad.map(|refused| refused.rule), expected.err(), "{name} {answer:?}");
                assert_eq!(examined.addresses.len(), answer.len());
            }
            (Err(stopped), _) => panic!("{name}: {stopped:?}"),
        }
        if let Err(rule) = expected {
            assert_eq!(verdict(&egress, name, 443).await, Err(refused(rule)), "{name} {answer:?}");
        }
    }
    let resolver = Answers::with(&[]);
    let egress = egress(permitting(policy(&["receiver"], &["*.bad.example"])), resolver.clone());
    for (host, rule) in
        [("other", "name-single-label"), ("x.bad.example", "denied"), ("10.0.0.7", "ipv4-private")]
    {
        assert_eq!(verdict(&egress, host, 443).await, Err(refused(rule)), "{host}");
        assert!(matches!(egress.examine(host, 443).await,
                Err(Stopped::Refused(refused)) if refused.rule == rule));
    }
    assert_eq!(resolver.asked(), 0, "what is refused by its name is not looked up");
    assert_eq!(egress.examine("receiver", 443).await, Err(Stopped::NotResolved(NoName::Missing)));
}

#[tokio::test]
async fn an_allowed_network_is_dialed_but_never_our_own_listeners() {
    let target = echo("127.0.0.2:0").await;
    let lists = policy(&["127.0.0.0/8", "us.example.com"], &[]);
    let egress = egress(permitting(lists), Answers::with(&[("us.example.com", &[&["127.0.0.2"]])]));
    for host in ["127.0.0.2", "us.example.com"] {
        assert_eq!(verdict(&egress, host, target.port()).await, Ok(()), "{host}");
        let examined = egress.examine(host, target.port()).await.unwrap();
        assert_eq!(examined.addresses, [(target, Ok(Basis::Allowed(0)))]);
    }
    egress.protect(target);
    for host in ["127.0.0.2", "us.example.com"] {
        assert_eq!(
            verdict(&egress, host, target.port()).await,
            Err(refused("own-listener")),
            "{host}"
        );
    }
}

#[tokio::test]
async fn a_new_policy_counts_for_the_next_dial_in_both_ways() {
    let target = echo("127.0.0.2:0").await;
    let given = Given::from(policy(&["127.0.0.2"], &[]));
    let in_force = given.policy.clone();
    let egress = Egress::with_resolver(Options::default(), given, Answers::with(&[])).unwrap();
    assert_eq!(verdict(&egress, "127.0.0.2", target.port()).await, Ok(()));
    assert!(in_force.replace(policy(&["127.0.0.2"], &["127.0.0.0/8"])));
    assert_eq!(verdict(&egress, "127.0.0.2", target.port()).await, Err(refused("denied")));
    assert!(in_force.replace(policy(&["127.0.0.0/30"], &[])));
    assert_eq!(verdict(&egress, "127.0.0.2", target.port()).await, Ok(()));
    assert_eq!(
        verdict(&egress, "127.0.0.4", target.port()).await,
        Err(DialError::Refused { rule: "ipv4-loopback".into() })
    );
}

#[tokio::test]
async fn connections_that_a_new_policy_refuses_are_cut_and_others_stand() {
    let (target, other) = (echo("127.0.0.2:0").await, echo("127.0.0.3:0").await);
    let given = Given::from(policy(&["127.0.0.2", "receiver", "127.0.0.3"], &[]));
    let in_force = given.policy.clone();
    let answers = Answers::with(&[("receiver", &[&["127.0.0.2"]])]);
    let egress = Egress::with_resolver(Options::default(), given, answers).unwrap();
    let served = Served::new(&egress).await;
    let mut cut = Vec::new();
    for host in ["127.0.0.2", "receiver"] {
        cut.push(soon(egress.dial(host, target.port())).await.unwrap());
        cut.push(soon(served.dialer().dial(host, target.port())).await.unwrap());
    }
    let mut standing = [
        soon(egress.dial("127.0.0.3", other.port())).await.unwrap(),
        soon(served.dialer().dial("127.0.0.3", other.port())).await.unwrap(),
    ];
    let mut byte = [0];
    for stream in cut.iter_mut().chain(&mut standing) {
        stream.write_all(b"x").await.unwrap();
        soon(stream.read_exact(&mut byte)).await.unwrap();
    }
    // Nothing is read from them at that moment, as with connections that are kept for later.
    assert!(in_force.replace(policy(&["127.0.0.3", "receiver"], &[])));
    for stream in &mut cut {
        assert!(!matches!(soon(stream.read(&mut byte)).await, Ok(1..)), "it is cut");
    }
    for stream in &mut standing {
        stream.write_all(b"y").await.unwrap();
        soon(stream.read_exact(&mut byte)).await.unwrap();
        assert_eq!(&byte, b"y");
    }
}
