//! Messages that declare how they are reached, the errors that they declare, and several services.

use serde_json::json;

use crate::shop::Open;

#[tokio::test]
async fn customers_come_and_go() {
    let shop = Open::now().await;
    assert_eq!(shop.say("GET", "/customers", &[], "").await.value(), json!({}));

    let json = ("content-type", "application/json");
    let ann = r#"{"name":"Ann"}"#;
    let created = shop.say("POST", "/customers", &[json, ("X-Id", "7")], ann).await;
    assert_eq!((created.status, created.text()), (201, "7"));
    let shown = shop.say("GET", "/customers/7", &[], "").await;
    assert_eq!((shown.status, shown.value()), (200, json!({ "name": "Ann", "version": 1 })));

    let taken = shop.say("POST", "/customers", &[json, ("x-id", "7")], ann).await;
    assert_eq!((taken.status, taken.header("content-type")), (409, "application/problem+json"));
    assert_eq!(taken.value()["type"], "/problems/refused/Create/Taken");
    assert_eq!(taken.value()["error"], json!({ "Taken": { "id": 7 } }));
    let odd = shop.say("POST", "/customers", &[json, ("x-id", "8")], r#"{"name":""}"#).await;
    assert_eq!((odd.status, &odd.value()["error"]), (422, &json!("Odd")));

    let changed = shop.json("PUT", "/customers/7", r#"{"name":"Bea"}"#).await;
    assert_eq!((changed.status, changed.text()), (200, "null"));
    let listed = shop.say("GET", "/customers?name=Bea", &[], "").await;
    assert_eq!(listed.value(), json!({ "7": { "name": "Bea", "version": 2 } }));
    assert_eq!(shop.json("PUT", "/customers/9", r#"{"name":"Cid"}"#).await.status, 404);
    assert_eq!(shop.json("PUT", "/customers/9?force=true", r#"{"name":"Cid"}"#).await.status, 200);

    let removed = shop.say("DELETE", "/customers/7", &[], "").await;
    assert_eq!((removed.status, removed.text()), (204, ""));
    for method in ["GET", "DELETE"] {
        let missing = shop.say(method, "/customers/7", &[], "").await;
        assert_eq!((missing.status, &missing.value()["error"]), (404, &json!("NotFound")));
    }
    shop.close().await;
}

#[tokio::test]
async fn every_message_is_reached_by_its_name_as_well() {
    let shop = Open::now().await;
    let created = shop
        .say(
            "POST",
            "/Create",
            &[("x-id", "1"), ("content-type", "application/json")],
            r#"{"name":"A"}"#,
        )
        .await;
    assert_eq!(created.status, 201);
    assert_eq!(shop.say("GET", "/Show?id=1", &[], "").await.status, 200);
    assert_eq!(shop.json("POST", "/Show", r#"{"id":1}"#).await.status, 200);
    assert_eq!(shop.say("GET", "/Show?id=2", &[], "").await.status, 404);
    shop.close().await;
}

#[tokio::test]
async fn what_is_wrong_is_said_where_it_is() {
    let shop = Open::now().await;
    let first = |told: &crate::shop::Told| told.value()["errors"][0].clone();

    let path = shop.say("GET", "/customers/seven", &[], "").await;
    assert_eq!(path.status, 400);
    assert_eq!((&first(&path)["in"], &first(&path)["parameter"]), (&json!("path"), &json!("id")));

    let query = shop.say("GET", "/customers?nom=A", &[], "").await;
    assert_eq!(query.status, 400);
    assert_eq!(
        (&first(&query)["in"], &first(&query)["parameter"]),
        (&json!("query"), &json!("nom"))
    );
    assert_eq!(first(&query)["detail"], "is unknown: there are name");

    let json = ("content-type", "application/json");
    let header = shop.say("POST", "/customers", &[json], r#"{"name":"A"}"#).await;
    assert_eq!(header.status, 400);
    assert_eq!(first(&header)["in"], "header");
    assert_eq!(first(&header)["parameter"], "x-id");

    let body = r#"{"name":"A","version":0}"#;
    let body = shop.say("POST", "/customers", &[json, ("x-id", "1")], body).await;
    assert_eq!(body.status, 422);
    assert_eq!(
        (&first(&body)["in"], &first(&body)["pointer"]),
        (&json!("body"), &json!("/version"))
    );

    let elsewhere = shop.json("PUT", "/customers/7", r#"{"id":8,"name":"A"}"#).await;
    assert_eq!(elsewhere.status, 422);
    assert_eq!(first(&elsewhere)["pointer"], "/id");

    let method = shop.say("PATCH", "/customers/7", &[], "").await;
    assert_eq!(method.status, 405);
    assert_eq!(method.header("allow"), "GET, HEAD, PUT, DELETE, OPTIONS");
    let none = shop.say("GET", "/customers/7/orders", &[], "").await;
    assert_eq!(none.status, 404);
    shop.close().await;
}

#[tokio::test]
async fn a_client_that_has_this_version_is_told_so() {
    let shop = Open::now().await;
    let json = ("content-type", "application/json");
    shop.say("POST", "/customers", &[json, ("x-id", "7")], r#"{"name":"A","version":3}"#).await;
    let shown = shop.say("GET", "/customers/7", &[], "").await;
    assert_eq!(shown.header("etag"), "\"3\"");
    let same = shop.say("GET", "/customers/7", &[("if-none-match", "\"3\"")], "").await;
    assert_eq!((same.status, same.text(), same.header("etag")), (304, "", "\"3\""));
    let other = shop.say("GET", "/customers/7", &[("if-none-match", "\"2\"")], "").await;
    assert_eq!(other.status, 200);
    // What is missing is missing, whatever a client has.
    let missing = shop.say("GET", "/customers/8", &[("if-none-match", "*")], "").await;
    assert_eq!(missing.status, 404);
    shop.close().await;
}

#[tokio::test]
async fn two_versions_of_a_service_stand_side_by_side() {
    let shop = Open::with(&["shop-v1", "shop-v2"], |_| {}).await;
    let json = ("content-type", "application/json");
    let create = |path: &'static str| {
        let shop = &shop;
        async move { shop.say("POST", path, &[json, ("x-id", "7")], r#"{"name":"A"}"#).await.status }
    };
    assert_eq!(create("/shop-v2/Create").await, 201);
    assert_eq!(shop.say("GET", "/shop-v2/Show?id=7", &[], "").await.status, 200);
    // The resource is that of the first.
    assert_eq!(shop.say("GET", "/customers/7", &[], "").await.status, 404);
    assert_eq!(shop.say("GET", "/shop-v1/Show?id=7", &[], "").await.status, 404);
    assert_eq!(create("/customers").await, 201);
    assert_eq!(shop.say("GET", "/Show?id=7", &[], "").await.status, 200);
    let index = shop.say("GET", "/", &[], "").await.value();
    assert_eq!(index["services"][1]["name"], "shop-v2");
    shop.close().await;
}
