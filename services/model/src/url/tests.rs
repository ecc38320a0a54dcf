use proptest::prelude::*;

use super::*;

static STRICT: Policy = Policy {
    allow_loopback: false,
    allowed_ports: Vec::new(),
    allow: Vec::new(),
    deny: Vec::new(),
};
static DEVELOPMENT: Policy =
    Policy { allow_loopback: true, allowed_ports: Vec::new(), allow: Vec::new(), deny: Vec::new() };

fn parse(text: &str) -> Result<WebhookUrl> {
    WebhookUrl::parse(text, &STRICT)
}

#[test]
fn keeps_the_canonical_form() {
    let table = [
        ("https://example.com", "https://example.com/"),
        ("HTTPS://Example.COM:443/Hook", "https://example.com/Hook"),
        ("http://example.com.:80/a", "http://example.com/a"),
        ("http://example.com:443/a", "http://example.com:443/a"),
        ("https://example.com?x=1", "https://example.com/?x=1"),
        ("https://example.com/?", "https://example.com/?"),
        ("https://example.com//a//b/", "https://example.com//a//b/"),
        (
            "https://example.com/%2F%2f?q[]=a&u=http://x/?y@z",
            "https://example.com/%2F%2f?q[]=a&u=http://x/?y@z",
        ),
        ("https://example.com/it's?it's", "https://example.com/it's?it%27s"),
        ("https://8.8.8.8:8443/x", "https://8.8.8.8:8443/x"),
        ("https://[2001:4860:4860:0:0:0:0:8888]/x", "https://[2001:4860:4860::8888]/x"),
        ("https://[2A00:1450::1]:8443", "https://[2a00:1450::1]:8443/"),
        ("https://b\u{fc}cher.example/x", "https://xn--bcher-kva.example/x"),
        ("https://xn--BCHER-kva.example/x", "https://xn--bcher-kva.example/x"),
        ("https://stra\u{df}e.example/", "https://xn--strae-oqa.example/"),
        ("https://a_b.example.com/", "https://a_b.example.com/"),
        ("https://r3---sn-abc.example.com/", "https://r3---sn-abc.example.com/"),
        ("https://localhost.example.com/", "https://localhost.example.com/"),
        ("https://example.com:65535/", "https://example.com:65535/"),
    ];
    for (given, canonical) in table {
        let url = parse(given).unwrap_or_else(|error| panic!("{given}: {error}"));
        assert_eq!(url.as_str(), canonical, "{given}");
        assert_eq!(parse(canonical).unwrap(), url, "{given}");
    }
}

#[test]
fn gives_its_parts() {
    let url = parse("https://[2a00:1450::1]:8443/a?b").unwrap();
    assert_eq!((url.scheme(), url.host(), url.port()), ("https", "2a00:1450::1", 8443));
    assert_eq!((url.authority(), url.path_and_query()), ("[2a00:1450::1]:8443", "/a?b"));
    let url = parse("http://example.com/secret").unwrap();
    assert_eq!((url.is_https(), url.port(), url.authority()), (false, 80, "example.com"));
    assert_eq!(format!("{url:?}"), "WebhookUrl(http://example.com…)");
}

#[test]
fn refuses_what_is_malformed_or_read_differently_by_others() {
    for text in [
        "",
        "example.com",
        "//example.com",
        "https:example.com",
        "https:/example.com",
        "https:///example.com",
        "https://",
        "ftp://example.com/",
        "file:///etc/passwd",
        "gopher://example.com/",
        "javascript://example.com/%0aalert(1)",
        " https://example.com/",
        "https://example.com/ ",
        "https://example.com/a b",
        "ht\ttps://example.com/",
        "https://exam\nple.com/",
        "https://example.com/\0",
        "https://example.com/\u{7f}",
        "https://example.com/\u{85}",
        "https://example\u{ad}.com/",
        "https://exam\u{200b}ple.com/",
        "https://example.com/\u{202e}",
        "https://user@example.com/",
        "https://user:word@example.com/",
        "https://@example.com/",
        "https://example.com#@10.0.0.1/",
        "https://example.com/#top",
        "https://example.com\\@10.0.0.1/",
        "https:\\\\example.com",
        "https://example.com%2f@10.0.0.1/",
        "https://%65xample.com/",
        "https://example%2ecom/",
        "https://example.com:/",
        "https://example.com:0/",
        "https://example.com:65536/",
        "https://example.com:0443/",
        "https://example.com:+443/",
        "https://example.com:4 43/",
        "https://example.com:443:443/",
        "https://example.com:https/",
        "https://[2a00:1450::1/",
        "https://2a00:1450::1/",
        "https://[2a00:1450::1]x/",
        "https://[2a00:1450::1%25eth0]/",
        "https://[fe80::1%eth0]/",
        "https://[v1.a:b]/",
        "https://[]/",
        "https://[8.8.8.8]/",
        "https://[example.com]/",
        "https://[::ffff:8.8.8.8]/",
        "https://a..example.com/",
        "https://.example.com/",
        "https://example.com../",
        "https://-a.example.com/",
        "https://exam!ple.com/",
        "https://exa*mple.com/",
        "https://exam<ple.com/",
        "https://ex|ample.com/",
        "https://ex^ample.com/",
        "https://\u{ff45}xample.com/",
        "https://example\u{3002}com/",
        "https://example\u{ff0e}com/",
        "https://\u{2147}xample.com/",
        "https://\u{2170}.example.com/",
        "https://\u{212a}.example.com/",
        "https://\u{130}.example.com/",
        "https://\u{2488}example.com/",
        "https://\u{2105}.example.com/",
        "https://u\u{308}ber.example.com/",
        "https://xn--a.example.com/",
        "https://xn--.example.com/",
        "https://example.com/a/../b",
        "https://example.com/./a",
        "https://example.com/%2e%2e/a",
        "https://example.com/a/..",
        "https://example.com/{id}",
        "https://example.com/\"",
        "https://example.com/%",
        "https://example.com/%2",
        "https://example.com/%zz",
        "https://example.com/?%zz",
        "https://example.com/\u{e9}",
        "https://example.com/?a b",
        "https://example.com/?<>",
        "https://example.com/a[1]",
    ] {
        let error = parse(text).expect_err(text);
        assert!(
            matches!(error, MalformedUrl::Malformed(_)) || error.rule() == Some("name-syntax"),
            "{text}: {error}"
        );
        assert!(!error.to_string().is_empty());
    }
    let long = |length: usize| format!("https://example.com/{}", "a".repeat(length - 20));
    assert!(parse(&long(limits::URL_BYTES)).is_ok());
    assert_eq!(parse(&long(limits::URL_BYTES + 1)).unwrap_err().to_string(), TOO_LONG);
    assert!(TOO_LONG.contains(&limits::URL_BYTES.to_string()));
    assert!(
        parse(&format!("https://example.com/?{}", "'".repeat(1000))).is_err(),
        "too long once it is encoded"
    );
}

#[test]
fn refuses_hosts_of_the_inside_with_the_rule() {
    let table = [
        ("http://127.0.0.1/", "ipv4-loopback"),
        ("http://10.0.0.5:22/", "ipv4-private"),
        ("http://169.254.169.254/latest/meta-data/", "ipv4-metadata"),
        ("http://168.63.129.16/", "ipv4-metadata"),
        ("http://[::1]/", "ipv6-loopback"),
        ("http://[::ffff:127.0.0.1]/", "ipv4-loopback"),
        ("http://[::ffff:7f00:1]/", "ipv4-loopback"),
        ("http://[64:ff9b::a00:1]/", "ipv6-nat64"),
        ("http://[fd00::1]/", "ipv6-unique-local"),
        ("http://localhost/", "name-localhost"),
        ("http://LOCALHOST.:8080/", "name-localhost"),
        ("http://metadata.google.internal/", "name-metadata"),
        ("http://redis:6379/", "name-single-label"),
        ("http://2130706433/", "name-numeric"),
        ("http://0x7f000001/", "name-numeric"),
        ("http://0177.0.0.1/", "name-numeric"),
        ("http://127.1/", "name-numeric"),
        ("http://127.0.0.1./", "name-numeric"),
        ("http://0x7f.0.0.0x1/", "name-numeric"),
        ("http://010.8.8.8/", "name-numeric"),
        ("http://8.8.8.8.8/", "name-numeric"),
    ];
    for (text, rule) in table {
        let error = parse(text).expect_err(text);
        assert_eq!(error.rule(), Some(rule), "{text}: {error}");
        assert!(error.to_string().contains(rule));
    }
}

#[test]
fn refuses_ports_of_other_services_unless_they_are_opened() {
    for (text, port) in [
        ("https://example.com:22/", 22),
        ("http://8.8.8.8:25/", 25),
        ("http://[2a00:1450::1]:6379/", 6379),
        ("https://example.com:10250/pods", 10250),
    ] {
        let error = parse(text).expect_err(text);
        assert_eq!(error.rule(), Some("port-of-other-service"), "{text}");
        assert_eq!(
            error.to_string(),
            format!(
                "port {port} is refused: a port of another service is not allowed \
                    (port-of-other-service)"
            )
        );
        let opened = Policy { allowed_ports: vec![port], ..Policy::default() };
        assert_eq!(WebhookUrl::parse(text, &opened).unwrap().port(), port);
    }
    // The host is reported before the port.
    assert_eq!(parse("http://10.0.0.5:22/").unwrap_err().rule(), Some("ipv4-private"));
    for text in [
        "http://example.com/",
        "https://example.com:8443/",
        "http://example.com:3000/",
        "http://example.com:9000/",
    ] {
        assert!(parse(text).is_ok(), "{text}");
    }
}

#[test]
fn the_switch_permits_loopback_and_nothing_else() {
    for text in [
        "http://127.0.0.1:8080/",
        "http://[::1]:8080/",
        "http://localhost:8080/",
        "http://a.localhost/",
    ] {
        assert_eq!(WebhookUrl::parse(text, &DEVELOPMENT).unwrap().as_str(), text);
    }
    for text in [
        "http://10.0.0.1/",
        "http://redis:6379/",
        "http://127.1/",
        "http://[::ffff:127.0.0.1]/",
        "http://0.0.0.0/",
    ] {
        assert!(WebhookUrl::parse(text, &DEVELOPMENT).is_err(), "{text}");
    }
}

/// Most of these are not accepted as URLs, but enough are.
const URLS: &str =
    "https://[a-z0-9.-]{1,12}(:[0-9]{1,5})?(/[a-z0-9.%/'~]{0,12})?(\\?[a-z'&=\\[\\]]{0,8})?";

proptest! {
    #[test]
    fn no_text_panics_and_what_passes_is_canonical(
        text in "(https?://)?[a-zA-Z0-9.:/?#@%\\[\\]\\\\'_\u{e9}\u{ff45} -]{0,40}",
    ) {
        if let Ok(url) = WebhookUrl::parse(&text, &DEVELOPMENT) {
            prop_assert_eq!(WebhookUrl::parse(url.as_str(), &DEVELOPMENT), Ok(url));
        }
    }

    #[test]
    fn what_passes_is_what_the_other_parser_reads(text in URLS) {
        if let Ok(url) = WebhookUrl::parse(&text, &STRICT) {
            let other = Url::parse(&text).unwrap();
            prop_assert_eq!(other.host_str().map(|host| host.trim_end_matches('.')),
                Some(url.host()));
            prop_assert_eq!(other.port_or_known_default(), Some(url.port()));
        }
    }

    #[test]
    fn any_text_is_survived(text: String) {
        let _ = parse(&text);
        let _ = parse(&format!("https://{text}"));
        let _ = parse(&format!("https://example.com/{text}"));
    }
}
