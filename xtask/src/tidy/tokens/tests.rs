use super::*;

const PURE_PLACE: Place = Place { pure: true, clock: false, library: true };
const LIBRARY: Place = Place { pure: false, clock: false, library: true };

fn found(place: Place, source: &str) -> Vec<(usize, &'static str)> {
    let mut violations = Vec::new();
    check("a.rs", source, place, &UnsafeList::default(), &mut violations);
    violations.into_iter().map(|violation| (violation.line, violation.rule)).collect()
}

fn clean(place: Place, source: &str) {
    assert_eq!(found(place, source), [], "{source}");
}

#[test]
fn pure_code_reads_no_clock_and_knows_no_tokio() {
    assert_eq!(found(PURE_PLACE, "fn f() {\n  let t = std::time::Instant::now();\n}"), [(2, "pure")]);
    assert_eq!(found(PURE_PLACE, "fn f() { SystemTime::now(); }"), [(1, "pure")]);
    assert_eq!(found(PURE_PLACE, "use tokio::sync::mpsc;"), [(1, "pure")]);
    clean(PURE_PLACE, "fn f(now: Instant) -> Duration { now.elapsed_since(Instant::default()) }");
    clean(Place { clock: true, ..PURE_PLACE }, "fn f() { Instant::now(); }");
    clean(LIBRARY, "fn f() { tokio::spawn(Instant::now()); }");
}

#[test]
fn pure_code_has_no_statics() {
    assert_eq!(found(PURE_PLACE, "static COUNT: AtomicU64 = AtomicU64::new(0);"), [(1, "pure")]);
    assert_eq!(found(PURE_PLACE, "static C: LazyLock<X> = LazyLock::new(X::new);"), [(1, "pure")]);
    assert_eq!(found(PURE_PLACE, "thread_local! { }"), [(1, "pure")]);
    assert_eq!(found(PURE_PLACE, "lazy_static! { }"), [(1, "pure")]);
    clean(PURE_PLACE, "fn f(text: &'static str) -> Box<dyn Error + 'static> { g::<T>(text) }");
}

#[test]
fn static_mut_is_nowhere() {
    assert_eq!(found(LIBRARY, "static mut X: u8 = 0;"), [(1, "static")]);
    clean(LIBRARY, "fn f(x: &'static mut u8) {} static X: u8 = 0;");
}

#[test]
fn comments_strings_and_tests_do_not_count() {
    clean(
        PURE_PLACE,
        "/// Uses `Instant::now()`.\n// tokio::spawn\nfn f() -> &str { \"static mut todo!()\" }",
    );
    clean(PURE_PLACE, "#[cfg(test)]\nmod tests { fn f() { Instant::now(); println!(\"x\"); } }");
    clean(PURE_PLACE, "#[cfg(test)]\nuse tokio::time;");
    let after = "#[cfg(test)]\nmod tests;\nfn f() { Instant::now(); }";
    assert_eq!(found(PURE_PLACE, after), [(3, "pure")]);
    let not_test = "#[cfg(not(test))]\nfn f() { Instant::now(); }";
    assert_eq!(found(PURE_PLACE, not_test), [(2, "pure")]);
}

#[test]
fn libraries_do_not_print() {
    for name in PRINTING {
        assert_eq!(found(LIBRARY, &format!("fn f() {{ {name}!(\"x\"); }}")), [(1, "print")]);
        clean(Place::default(), &format!("fn f() {{ {name}!(\"x\"); }}"));
    }
    clean(LIBRARY, "fn println() -> bool { println != 3 }");
}

#[test]
fn unfinished_work_is_found_in_tests_too() {
    for name in LEFTOVER {
        let source = format!("#[cfg(test)]\nmod tests {{ fn f() {{ {name}!() }} }}");
        assert_eq!(found(Place::default(), &source), [(2, "leftover")]);
    }
    clean(LIBRARY, "#![warn(clippy::todo)] #[doc = \"todo!()\"] fn todo() { todo(); }");
}

#[test]
fn a_cfg_chooses_modules_not_statements() {
    clean(
        LIBRARY,
        "#[cfg(feature = \"x\")]\nmod x;\n#[cfg(unix)] fn f() {}\nimpl T { #[cfg(unix)] fn g() {} }",
    );
    clean(LIBRARY, "struct S { #[cfg(unix)] x: fn(u8), }\nconst A: u8 = if cfg!(unix) { 1 } else { 2 };");
    assert_eq!(found(LIBRARY, "fn f() {\n #[cfg(unix)]\n g();\n}"), [(2, "cfg")]);
    assert_eq!(found(LIBRARY, "fn f<T>() -> T where T: X {\n if cfg!(unix) { g() }\n}"), [(2, "cfg")]);
    assert_eq!(
        found(LIBRARY, "impl T { async fn f(&self) { h(|| { #[cfg_attr(a, b)] g(); }) } }"),
        [(1, "cfg")]
    );
    assert_eq!(found(LIBRARY, "fn f() { match x { #[cfg(unix)] 1 => 2, } }"), [(1, "cfg")]);
}

#[test]
fn a_cfg_after_a_function_or_in_generated_code_is_fine() {
    clean(LIBRARY, "trait T { fn f(&self); #[cfg(unix)] fn g(&self); }");
    clean(LIBRARY, "fn f() {}\n#[cfg(unix)]\nfn g() {}");
    clean(LIBRARY, "fn f() -> TokenStream { quote! { #[cfg(unix)] mod x; } }");
    clean(LIBRARY, "fn f() {} struct S { g: fn(u8) -> u8 } mod m { #[cfg(unix)] mod n; }");
}

#[test]
fn unsafe_stands_only_in_listed_files() {
    let source = "fn f() { unsafe { g() } }";
    assert_eq!(found(LIBRARY, source), [(1, "unsafe")]);
    assert_eq!(found(LIBRARY, "fn f() { quote! { unsafe { g() } } }"), [(1, "unsafe")]);
    clean(LIBRARY, "#![forbid(unsafe_code)] // unsafe\nfn f() { \"unsafe\"; }");

    let list = UnsafeList::parse("# why\n\na.rs  # it calls the kernel\nb.rs\n");
    let mut violations = Vec::new();
    assert!(check("a.rs", source, LIBRARY, &list, &mut violations));
    assert!(violations.is_empty());
    assert_eq!(list.stale(&BTreeSet::from(["a.rs".to_owned()])), [(4, "b.rs")]);
}

#[test]
fn what_is_no_rust_is_said_so() {
    let rules: Vec<&str> = found(LIBRARY, "fn f() {\n").into_iter().map(|(_, rule)| rule).collect();
    assert_eq!(rules, ["lex"]);
}

#[test]
fn a_library_is_what_stands_beside_a_lib_rs() {
    let root = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(root.path().join("grid/src")).unwrap();
    std::fs::write(root.path().join("grid/src/lib.rs"), "").unwrap();
    assert!(is_library(root.path(), "grid/src/silo.rs"));
    for program in ["grid/src/main.rs", "grid/src/bin/x.rs", "grid/tests/x.rs", "cli/src/args.rs"] {
        assert!(!is_library(root.path(), program), "{program}");
    }
}
