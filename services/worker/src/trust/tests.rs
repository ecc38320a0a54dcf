use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, date_time_ymd,
};
use tokio_rustls::rustls::crypto::ring;

use super::*;
use crate::exchange;

type Der = CertificateDer<'static>;

fn params(name: &str, change: impl FnOnce(&mut CertificateParams)) -> CertificateParams {
    let mut params = CertificateParams::new(vec!["hooks.example".to_owned()]).unwrap();
    params.distinguished_name.push(DnType::CommonName, name);
    change(&mut params);
    params
}

fn ca(params: &mut CertificateParams) {
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
}

fn expired(params: &mut CertificateParams) {
    (params.not_before, params.not_after) = (date_time_ymd(2020, 1, 1), date_time_ymd(2021, 1, 1));
}

fn self_signed(change: impl FnOnce(&mut CertificateParams)) -> Der {
    params("self", change).self_signed(&KeyPair::generate().unwrap()).unwrap().der().clone()
}

fn issuer(name: &str) -> CertifiedIssuer<'static, KeyPair> {
    CertifiedIssuer::self_signed(params(name, ca), KeyPair::generate().unwrap()).unwrap()
}

fn issued(
    by: &CertifiedIssuer<'static, KeyPair>,
    change: impl FnOnce(&mut CertificateParams),
) -> Der {
    params("issued", change).signed_by(&KeyPair::generate().unwrap(), by).unwrap().der().clone()
}

fn trust(file: &[&Der]) -> Result<Trust> {
    let file: Vec<_> = file.iter().map(|der| (*der).clone()).collect();
    Trust::new(&file, Arc::new(ring::default_provider()))
}

/// Returns the text for the owner of an endpoint that presents these certificates. Empty if they
/// are trusted.
fn verdict(file: &[&Der], presented: &[&Der], host: &str) -> String {
    let others: Vec<_> = presented[1..].iter().map(|der| (*der).clone()).collect();
    let name = ServerName::try_from(host.to_owned()).unwrap();
    let judged =
        trust(file).unwrap().verify_server_cert(presented[0], &others, &name, &[], UnixTime::now());
    judged.err().map(|error| exchange::tls_text(&error)).unwrap_or_default()
}

#[test]
fn a_certificate_in_the_file_is_trusted_itself() {
    let authority = issuer("authority");
    for certificate in [self_signed(|_| {}), self_signed(ca), issued(&authority, |_| {})] {
        assert_eq!(verdict(&[&certificate], &[&certificate], "hooks.example"), "");
        let other = verdict(&[&certificate], &[&certificate], "other.example");
        assert_eq!(other, "the certificate is not for other.example; it is for hooks.example");
        // Further certificates decide nothing.
        let old = self_signed(expired);
        assert_eq!(verdict(&[&certificate], &[&certificate, &old], "hooks.example"), "");
    }
    let client = |params: &mut CertificateParams| {
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth]
    };
    let refused = trust(&[&self_signed(client)]).unwrap_err();
    assert_eq!(
        refused.violations[0].description,
        "certificate 1 of it is neither an authority's nor a server's"
    );
}

#[test]
fn an_authority_vouches_and_a_servers_certificate_does_not() {
    let authority = issuer("authority");
    let leaf = issued(&authority, |_| {});
    let root = authority.as_ref().der();
    assert_eq!(verdict(&[root], &[&leaf], "hooks.example"), "");
    assert_eq!(verdict(&[root], &[root], "hooks.example"), "", "it is trusted itself, too");
    // A certificate that is not an authority, but whose key signed another.
    let server =
        CertifiedIssuer::self_signed(params("server", |_| {}), KeyPair::generate().unwrap())
            .unwrap();
    let forged = issued(&server, |_| {});
    let told = verdict(&[server.as_ref().der()], &[&forged], "hooks.example");
    assert_eq!(told, Untrusted::Alone.to_string());
    assert_ne!(
        verdict(&[server.as_ref().der()], &[&forged, server.as_ref().der()], "hooks.example"),
        ""
    );
}

#[test]
fn dates_count_for_what_is_trusted_itself() {
    // An expired authority is accepted, as elsewhere. As a server, it is refused.
    let old = self_signed(|params| {
        ca(params);
        expired(params);
    });
    let told = verdict(&[&old], &[&old], "hooks.example");
    assert!(
        told.starts_with("the certificate expired ")
            && told.ends_with(" days ago; the endpoint needs a new one"),
        "{told}"
    );
    let late = self_signed(|params| {
        (params.not_before, params.not_after) =
            (date_time_ymd(2090, 1, 1), date_time_ymd(2091, 1, 1))
    });
    assert!(
        verdict(&[&late], &[&late], "hooks.example")
            .starts_with("the certificate is not valid yet (for ")
    );
    // An expired server certificate is useless, unless there is another certificate.
    let old = self_signed(expired);
    assert_eq!(
        trust(&[&old]).unwrap_err().violations[0].description,
        "holds nothing but certificates that have expired"
    );
    assert!(trust(&[&old, &late]).is_ok() && trust(&[]).is_ok());
}

#[test]
fn who_is_missing_is_told() {
    let authority = issuer("authority");
    let leaf = issued(&authority, |_| {});
    let root = authority.as_ref().der();
    for (presented, untrusted) in [
        (vec![&self_signed(|_| {})], Untrusted::SelfSigned),
        (vec![&self_signed(ca)], Untrusted::SelfSigned),
        (vec![&leaf], Untrusted::Alone),
        (vec![&leaf, root], Untrusted::OwnRoot),
        (vec![&leaf, &leaf], Untrusted::Chain),
    ] {
        assert_eq!(verdict(&[], &presented, "hooks.example"), untrusted.to_string());
    }
}

#[test]
fn what_is_no_certificate_is_refused_by_its_number() {
    let good = self_signed(|_| {});
    for wrong in [vec![1, 2, 3], Vec::new(), good[..good.len() - 1].to_vec()] {
        let error = trust(&[&good, &CertificateDer::from(wrong)]).unwrap_err();
        assert_eq!(error.violations[0].field, "extra_roots");
        assert_eq!(
            error.violations[0].description,
            "certificate 2 of it is no certificate that can be used"
        );
    }
}
