// SPDX-License-Identifier: Apache-2.0
// The small parts alone: text, stop strings, blocks, JSON writing, --kv-transfer-config, the
// bootstrap server.
#include "bench.h"

#include "json/text.h"
#include "kv/bootstrap.h"
#include "engine/kv_config.h"
#include "engine/model/stop_matcher.h"

namespace sluice::engine::test {
namespace {

TEST(Text, TokensTurnBackIntoText) {
    for (const std::string_view text :
         {"", "a", "abcd", "abcde", "Zürich, 東京 \xff\x01", "four by four by"}) {
        EXPECT_EQ(detokenize(tokenize(text)), text);
        EXPECT_EQ(tokenize(text).size(), count_tokens(text));
    }
    EXPECT_EQ(detokenize(std::vector<Token>{0}), std::string(1, '\0'));
}

TEST(Text, TheSamePromptGivesTheSameTextForEver) {
    // These words are in users' test suites.
    EXPECT_EQ(expected_text(hash_text("hello"), 0, 6), expected_text(hash_text("hello"), 0, 6));
    EXPECT_NE(expected_text(hash_text("hello"), 0, 6), expected_text(hash_text("hello!"), 0, 6));
    EXPECT_NE(expected_text(hash_text("hello"), 0, 6), expected_text(hash_text("hello"), 1, 6));
    EXPECT_EQ(expected_text(1, 0, 3).size(), 11U);
}

TEST(StopMatcher, AnyCutGivesTheSame) {
    const std::string text = "one two three four";
    for (const char* stop : {"two", "e f", "four", "o", "zzz", "three four"}) {
        for (std::size_t cut = 1; cut <= text.size(); ++cut) {
            StopMatcher matcher({stop}, false);
            std::string out;
            bool hit = false;
            for (std::size_t at = 0; at < text.size() && !hit; at += cut)
                hit = matcher.feed(std::string_view(text).substr(at, cut), out) != nullptr;
            if (!hit) matcher.flush(out);
            EXPECT_EQ(out, text.substr(0, text.find(stop))) << stop << " " << cut;
            EXPECT_EQ(hit, text.find(stop) != std::string::npos);
        }
    }
}

TEST(BlockPool, FreedBlocksKeepTheirContentUntilTheirTurn) {
    BlockPool pool(4);
    std::vector<BlockId> a, b, c;
    ASSERT_TRUE(pool.allocate(2, a));
    EXPECT_EQ(a, (std::vector<BlockId>{1, 2}));
    pool.write(a, 77);
    pool.release(a);
    EXPECT_EQ(pool.used(), 0U);
    ASSERT_TRUE(pool.allocate(2, b));
    EXPECT_EQ(pool.content(1), 77U);  // the fresh ones went first
    EXPECT_FALSE(pool.allocate(3, c));
    ASSERT_TRUE(pool.allocate(2, c));
    EXPECT_EQ(c, a);
    EXPECT_EQ(pool.available(), 0U);
    EXPECT_EQ(pool.content(1000), 0U);
}

TEST(JsonText, WritesWhatAParserReadsBack) {
    json::JsonText json;
    json.begin_object()
        .member("text", "q\"\\\n\x01 Zürich \xff\xc3")
        .member("n", -5)
        .member("null", nullptr);
    json.key("list").begin_array().value(1).value(true).begin_object().end_object().end_array();
    json.key("empty").begin_array().end_array().raw_member("raw", "[1]").end_object();
    const Json read = Json::parse(json.text);
    EXPECT_EQ(read["text"], "q\"\\\n\x01 Zürich \xef\xbf\xbd\xef\xbf\xbd");
    EXPECT_EQ(read["n"], -5);
    EXPECT_EQ(read["list"].size(), 3U);
    EXPECT_EQ(read["raw"][0], 1);
}

TEST(KvConfig, ReadsVllmsJson) {
    KvOptions options;
    ASSERT_TRUE(read_kv_transfer_config(
        R"({"kv_connector":"MooncakeConnector","kv_role":"kv_producer","engine_id":"e","kv_rank":0,
            "kv_load_failure_policy":"recompute",
            "kv_connector_extra_config":{"num_workers":4,"mooncake_protocol":"tcp","anything":1}})",
        options));
    EXPECT_EQ(options.connector, ConnectorKind::Mooncake);
    EXPECT_EQ(options.role, KvRole::Producer);
    EXPECT_EQ(options.engine_id, "e");
    EXPECT_EQ(options.failure_policy, LoadFailurePolicy::Recompute);
    EXPECT_EQ(options.num_workers, 4U);
    for (
        const char* bad :
        {"", "[]", "{}", R"({"kv_connector":"MooncakeConnector"})",
         R"({"kv_connector":"X","kv_role":"kv_both"})",
         R"({"kv_connector":"NixlConnector","kv_role":"both"})",
         R"({"kv_connector":"NixlConnector","kv_role":"kv_both","surprise":1})",
         R"({"kv_connector":"NixlConnector","kv_role":"kv_both","kv_connector_extra_config":{"num_workers":0}})"}) {
        KvOptions other;
        const auto read = read_kv_transfer_config(bad, other);
        ASSERT_FALSE(read.has_value()) << bad;
        EXPECT_TRUE(read.error().starts_with("--kv-transfer-config: ")) << read.error();
    }
}

class Bootstrap : public Bench {
protected:
    Json registration(std::string_view id, int dp, int tp, std::string_view address) {
        return {
            {"engine_id", id}, {"dp_rank", dp}, {"tp_rank", tp}, {"pp_rank", 0}, {"addr", address}};
    }
};

TEST_F(Bootstrap, RepliesAsVllms) {
    EngineOptions options = mooncake(KvRole::Producer);
    options.tensor_parallel = 2;
    Engine& p = add(options);
    const io::Address at = p.bootstrap_address();
    Ask& query = send(at, "GET", "/query");
    EXPECT_EQ(query.status, 200);
    EXPECT_EQ(query.fields["Content-Type"], "application/json");
    const Json known = query.json();
    EXPECT_EQ(known["0"]["engine_id"], p.engine_id());
    const std::string worker = known["0"]["worker_addr"]["1"]["0"];
    EXPECT_TRUE(worker.starts_with("tcp://10.0.0.1:"));

    EXPECT_EQ(send(at, "GET", "/health").body, R"({"detail":"Not Found"})");
    EXPECT_EQ(send(at, "POST", "/query", "{}").status, 405);
    EXPECT_EQ(send(at, "GET", "/register").body, R"({"detail":"Method Not Allowed"})");

    Ask& same = send(at, "POST", "/register", registration(p.engine_id(), 0, 1, worker).dump());
    EXPECT_EQ(same.status, 200);
    EXPECT_EQ(same.body, R"({"status":"ok"})");
    Ask& moved =
        send(at, "POST", "/register", registration(p.engine_id(), 0, 1, "tcp://x:1").dump());
    EXPECT_EQ(moved.status, 400);
    EXPECT_EQ(moved.json()["detail"],
              "Worker with dp_rank=0, tp_rank=1, pp_rank=0 is already registered at " + worker +
                  ", but still want to register at tcp://x:1");
    Ask& other = send(at, "POST", "/register", registration("other", 0, 0, "tcp://x:1").dump());
    EXPECT_EQ(other.status, 400);
    EXPECT_EQ(other.json()["detail"],
              "Engine ID mismatch for dp_rank=0: expected " + p.engine_id() + ", got other");
    for (const char* bad : {"", "{", "[]", "{}", R"({"engine_id":7})"})
        EXPECT_EQ(send(at, "POST", "/register", bad).status, 422) << bad;
    EXPECT_EQ(send(at, "POST", "/register", registration("new", 1, 0, "tcp://x:1").dump()).status,
              200);
    EXPECT_EQ(send(at, "GET", "/query").json()["1"]["worker_addr"]["0"]["0"], "tcp://x:1");
}

TEST_F(Bootstrap, IsIncompleteWhileWorkersComeUp) {
    EngineOptions options = mooncake(KvRole::Producer);
    options.data_parallel = 2;
    options.kv.registration_interval = 1s;
    Engine& p = add(options);
    EXPECT_FALSE(p.serving());
    EXPECT_EQ(send(p.bootstrap_address(), "GET", "/query").json().size(), 1U);
    run_for(3s);
    EXPECT_EQ(send(p.bootstrap_address(), "GET", "/query").json().size(), 2U);
    EXPECT_TRUE(p.serving());
}

TEST_F(Bootstrap, WorkersMayRegisterWithAnOutsideServer) {
    Engine& server = add(mooncake(KvRole::Producer));
    EngineOptions options = mooncake(KvRole::Producer);
    options.kv.external_bootstrap = server.bootstrap_address().text();
    options.kv.engine_id = server.engine_id();
    Engine& refused = add(options);  // another worker is registered as rank 0 already
    run_for(3s);
    EXPECT_FALSE(refused.serving());
    EXPECT_TRUE(refused.dead());
}

}  // namespace
}  // namespace sluice::engine::test
