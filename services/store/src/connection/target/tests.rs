use super::*;

fn parsed(text: &str) -> Target {
    Target::parse(text).unwrap_or_else(|why| panic!("{text}: {why}"))
}

fn refused(text: &str) -> String {
    let why = Target::parse(text).err().unwrap_or_else(|| panic!("{text} is taken"));
    assert!(!why.contains("hunter2"), "{why}");
    why
}

/// Host, port, user and database of each host.
fn places(text: &str) -> Vec<(String, u16, String, Option<String>)> {
    let connects = parsed(text).connects().unwrap();
    connects
        .iter()
        .map(|connect| {
            let host = connect.get_socket().map_or_else(
                || connect.get_host().to_owned(),
                |socket| socket.display().to_string(),
            );
            (
                host,
                connect.get_port(),
                connect.get_username().to_owned(),
                connect.get_database().map(str::to_owned),
            )
        })
        .collect()
}

fn place(host: &str, port: u16) -> (String, u16, String, Option<String>) {
    (host.to_owned(), port, "u".to_owned(), Some("d".to_owned()))
}

#[test]
fn both_forms_say_the_same() {
    for text in [
        "postgres://u@h:1/d",
        "postgresql://u:p%23@h:1/d",
        "postgres://u@/d?host=h&port=1",
        "postgres://h:1?user=u&dbname=d",
        "host=h port=1 user=u dbname=d",
        "host = 'h' port=1 user='u' dbname=\\d",
    ] {
        assert_eq!(places(text), [place("h", 1)], "{text}");
    }
    assert_eq!(places("postgres://u@[::1]:2/d"), [place("::1", 2)]);
    assert_eq!(places("postgres://u@%2Frun%2Fpg:3/d"), [place("/run/pg", 3)]);
    assert_eq!(places("host=/run/pg port=3 user=u dbname=d"), [place("/run/pg", 3)]);
    assert_eq!(places("postgres://u@a:1,[::1]:2/d"), [place("a", 1), place("::1", 2)]);
    assert_eq!(places("host=a,b port=7 user=u dbname=d"), [place("a", 7), place("b", 7)]);
    assert_eq!(
        places("postgres://u@h:1/d%20e?dbname=d"),
        [place("h", 1)],
        "a later one replaces an earlier one"
    );
    assert_eq!(places("user='it\\'s' host=h port=1 dbname=d")[0].2, "it's");
}

#[test]
fn what_is_malformed_is_told_without_its_values() {
    for (text, word) in [
        ("postgres://u:hunter2@[::1", "must end with ]"),
        ("postgres://u:hunter2@[]/d", "empty"),
        ("postgres://u:hunter2@[::1]z/d", "only a port"),
        ("postgres://u:hunter2@h:99999/d", "port"),
        ("postgres://u:hunter2@h:1,i:2,j/d?port=1,2", "2 port numbers do not match 3 hosts"),
        ("postgres://u:hunter2%@h/d", "hexadecimal"),
        ("postgres://u:hunter2%00@h/d", "hexadecimal"),
        ("postgres://u:hun ter2@h/d", "%20"),
        ("postgres://h/d?zzz", "no ="),
        ("postgres://h/d?user=a=hunter2", "second ="),
        ("password='hunter2", "no end"),
        ("host=h hunter2", "no ="),
        ("host=h hostaddr=hunter2", "IP address"),
        ("host=@hunter2", "abstract"),
        ("host=h pasword=hunter2", "did you mean password?"),
        ("postgres://h/d?traget_session_attrs=any", "did you mean target_session_attrs?"),
        ("postgres://h/d?hunter2=1", "does not exist"),
        ("postgres://h/d?sslmode=hunter2", "sslmode must be one of"),
        ("postgres://h/d?sslmode=allow", "prefer"),
        ("postgres://h/d?sslrootcert=system&sslmode=require", "verify-full"),
        ("postgres://h/d?options=-c%20lock_timeout%3D1", "lock_timeout is set by Outrider"),
        ("postgres://h/d?options=-B%205", "only -c"),
    ] {
        let why = refused(text);
        assert!(why.contains(word), "{text}: {why}");
    }
}

/// No parameter of libpq is ignored in silence.
#[test]
fn every_parameter_is_taken_or_refused_with_the_reason_in_both_forms() {
    for (name, becomes) in parameters::PARAMETERS {
        let (good, bad) = match becomes {
            parameters::Support::Full => continue,
            parameters::Support::Only(values, _) => (Some(values[0]), "hunter2"),
            parameters::Support::Refused(_) => (None, "hunter2"),
        };
        for text in [format!("{name}={bad}"), format!("postgres://h/d?{name}={bad}")] {
            assert!(refused(&text).contains(&format!("the parameter {name} ")), "{text}");
        }
        if let Some(good) = good {
            parsed(&format!("{name}={good}"));
            parsed(&format!("postgres://h/d?{name}={good}"));
        }
    }
}

#[test]
fn modes_of_tls_mean_what_they_mean_to_libpq() {
    let mode = |text: &str| format!("{:?}", parsed(text).connects().unwrap()[0].get_ssl_mode());
    assert_eq!(mode("postgres://h/d?sslmode=require"), "Require");
    assert_eq!(mode("postgres://h/d?sslmode=require&sslrootcert=ca.pem"), "VerifyCa");
    assert_eq!(mode("postgres://h/d?ssl=true"), "Require");
    assert_eq!(mode("postgres://h/d?ssl-mode=verify-full"), "VerifyFull");
    assert_eq!(mode("postgres://h/d?sslrootcert=system"), "VerifyFull");
    assert_eq!(mode("host=/run sslmode=require"), "Disable");
}

#[test]
fn settings_are_taken_apart_and_never_sent_at_the_start() {
    let target = parsed(
        "postgres://h/d?options=-c%20work_mem%3D4MB%20--search-path%3Da,b%20-cx.y%3D1%5C%202",
    );
    let settings: Vec<_> =
        target.settings().iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    assert_eq!(settings, [("work_mem", "4MB"), ("search_path", "a,b"), ("x.y", "1 2")]);
    assert!(
        target.connects().unwrap()[0]
            .get_options()
            .is_none_or(|options| !options.contains("work_mem"))
    );
    assert_eq!(
        parsed("postgres://h/d?currentSchema=my%20own").settings(),
        [("search_path".to_owned(), "my own".to_owned())]
    );
}

#[test]
fn who_writes_wants_a_server_that_takes_writes() {
    assert_eq!(parsed("host=a").server_kind(false), Ok(ServerKind::Any));
    assert_eq!(parsed("host=a,b").server_kind(false), Ok(ServerKind::ReadWrite));
    assert_eq!(parsed("host=a,b").server_kind(true), Ok(ServerKind::Any));
    assert_eq!(
        parsed("host=a target_session_attrs=primary").server_kind(false),
        Ok(ServerKind::Primary)
    );
    assert!(parsed("host=a target_session_attrs=standby").server_kind(false).is_err());
    assert_eq!(
        parsed("host=a target_session_attrs=standby").server_kind(true),
        Ok(ServerKind::Standby)
    );
}

#[test]
fn variables_of_libpq_are_heeded_or_refused() {
    let with = |name: &'static str, value: &'static str| {
        parsed("host=a").with_environment(move |asked| (asked == name).then(|| value.to_owned()))
    };
    assert_eq!(
        with("PGTARGETSESSIONATTRS", "primary").unwrap().server_kind(false),
        Ok(ServerKind::Primary)
    );
    assert_eq!(
        with("PGCONNECT_TIMEOUT", "7").unwrap().connect_timeout(),
        Some(Duration::from_secs(7))
    );
    for (name, value) in [
        ("PGREQUIREAUTH", "hunter2"),
        ("PGCHANNELBINDING", "require"),
        ("PGSSLMODE", "hunter2"),
        ("PGSERVICE", "x"),
    ] {
        let why = with(name, value).err().unwrap();
        assert!(!why.contains("hunter2"), "{why}");
    }
}

#[test]
fn passwords_do_not_show() {
    for text in [
        "postgres://u:hunter2@h/d?a=b",
        "postgres://u:hun@ter2@h/d",
        "postgres://u@h/d?password=hunter2&sslmode=require",
        "host=h password='hunter2' user=u",
        "password = hunter2",
        "host=h hunter2",
    ] {
        let masked = masked(text);
        assert!(!masked.contains("ter2"), "{masked}");
    }
    assert_eq!(
        masked("postgres://u:hunter2@h:1/d?sslmode=require"),
        "postgres://u:…@h:1/d?sslmode=require"
    );
    assert_eq!(masked("postgres://h/d"), "postgres://h/d");
}
