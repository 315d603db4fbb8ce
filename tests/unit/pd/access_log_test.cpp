// SPDX-License-Identifier: Apache-2.0
#include "pd/access_log.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdio>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <set>
#include <sstream>

namespace sluice::pd {
namespace {

using namespace std::chrono_literals;
using nlohmann::json;

AccessRecord some_record(const std::string& id) {
    AccessRecord record;
    Timeline& t = record.timeline;
    t.received = Instant(100ms);
    t.began = Instant(101ms);
    t.admitted = Instant(101ms);
    t.prefill_began = Instant(102ms);
    t.prefill_ended = Instant(152ms);
    t.decode_sent = Instant(103ms);
    t.first_content = Instant(160ms + 7us);
    t.last_byte = Instant(260ms);
    t.client_in = 140;
    t.client_out = 5000;
    t.pieces = 12;
    t.attempts = 2;
    t.prefill_index = 0;
    t.decode_index = 1;
    t.dialect = fleet::DialectKind::Mooncake;
    t.status = 200;
    record.ended = Instant(261ms);
    record.outcome = Outcome::Ok;
    record.stream = true;
    record.request_id.set(id);
    record.path.set("/v1/chat/completions");
    return record;
}

AccessContext some_context() {
    AccessContext context;
    context.instances[0] = {"http://p0:1"};
    context.instances[1] = {"http://d0:1", "http://d1:1"};
    context.wall_offset = 1'700'000'000s;  // 2023-11-14T22:13:20Z
    return context;
}

json parse_one(const AccessRecord& record) {
    std::string line;
    append_access_line(line, record, some_context());
    EXPECT_TRUE(line.ends_with("}\n"));
    EXPECT_EQ(line.find('\n'), line.size() - 1);
    return json::parse(line, nullptr, false);
}

TEST(AccessLine, SaysWhatHappened) {
    const json line = parse_one(some_record("abc"));
    ASSERT_TRUE(line.is_object());
    EXPECT_EQ(line["time"], "2023-11-14T22:13:20.100000Z");
    EXPECT_EQ(line["request_id"], "abc");
    EXPECT_EQ(line["path"], "/v1/chat/completions");
    EXPECT_EQ(line["status"], 200);
    EXPECT_EQ(line["outcome"], "ok");
    EXPECT_EQ(line["stream"], true);
    EXPECT_EQ(line["dialect"], "mooncake");
    EXPECT_EQ(line["attempts"], 2);
    EXPECT_EQ(line["prefill"], "http://p0:1");
    EXPECT_EQ(line["decode"], "http://d1:1");
    EXPECT_EQ(line["receive_ms"], 1.0);
    EXPECT_EQ(line["admitted_ms"], 0.0);
    EXPECT_EQ(line["prefill_begin_ms"], 1.0);
    EXPECT_EQ(line["prefill_end_ms"], 51.0);
    EXPECT_EQ(line["first_content_ms"], 59.007);
    EXPECT_EQ(line["total_ms"], 160.0);
    EXPECT_EQ(line["bytes_in"], 140);
    EXPECT_EQ(line["bytes_out"], 5000);
    EXPECT_EQ(line["sample"], 1);
    EXPECT_FALSE(line.contains("decode_head_ms"));  // did not happen
    EXPECT_FALSE(line.contains("model"));           // not known
}

TEST(AccessLine, OfARequestWithoutAnExchangeIsShort) {
    AccessRecord record;
    record.timeline.status = 404;
    record.outcome = Outcome::ClientError;
    record.path.set("/x");
    const json line = parse_one(record);
    EXPECT_EQ(line["status"], 404);
    EXPECT_EQ(line["outcome"], "client_error");
    for (const char* absent : {"attempts", "total_ms", "prefill", "dialect", "request_id"})
        EXPECT_FALSE(line.contains(absent)) << absent;
}

TEST(AccessLine, TextsAreBoundedAndEscaped) {
    AccessRecord record = some_record(std::string(500, 'i'));
    const std::string odd = "a\"b\\c\n\x01\x7f\u20ac";
    record.model.set(odd);
    record.path.set("/" + std::string(200, '"'));
    const json line = parse_one(record);
    ASSERT_TRUE(line.is_object());
    EXPECT_EQ(line["request_id"], std::string(kRequestIdMax, 'i'));
    EXPECT_EQ(line["model"], odd);
    EXPECT_EQ(line["path"], "/" + std::string(kLoggedPathMax - 1, '"'));
    // Cut before a sequence that does not fit, not in it.
    record.model.set(std::string(kLoggedModelMax - 1, 'm') + "\u20ac");
    EXPECT_EQ(parse_one(record)["model"], std::string(kLoggedModelMax - 1, 'm'));
}

std::string read_file(const std::string& path) {
    std::stringstream text;
    text << std::ifstream(path).rdbuf();
    return text.str();
}

// The ids of all lines, each of which must be valid and there once.
std::multiset<std::string> ids_of(const std::string& text) {
    std::multiset<std::string> ids;
    std::istringstream lines(text);
    for (std::string line; std::getline(lines, line);) {
        const json parsed = json::parse(line, nullptr, false);
        if (!parsed.is_object()) {
            ADD_FAILURE() << "not JSON: " << line;
            continue;
        }
        ids.insert(parsed["request_id"].get<std::string>());
    }
    return ids;
}

class AccessLogTest : public testing::Test {
protected:
    AccessLogTest() {
        folder_ = testing::TempDir() + "/sluice-log-" + std::to_string(::getpid());
        std::filesystem::create_directories(folder_);
        path_ = folder_ + "/access.log";
    }
    ~AccessLogTest() override { std::filesystem::remove_all(folder_); }

    std::unique_ptr<AccessLog> open(const std::string& path, std::uint32_t sample = 1) {
        auto log = AccessLog::open({path, sample}, {"http://p0:1"}, {"http://d0:1", "http://d1:1"});
        EXPECT_TRUE(log) << log.error();
        return log ? std::move(*log) : nullptr;
    }

    std::string folder_;
    std::string path_;
};

// Two workers at full speed, the file moved away under them again and again: every record is in one
// of the files, or was counted as dropped.
TEST_F(AccessLogTest, NothingIsLostUncountedOverRotations) {
    constexpr int kRecords = 20'000;
    constexpr int kRotations = 5;
    const auto log = open(path_);
    ASSERT_NE(log, nullptr);
    AccessLog::Writer* writers[] = {&log->add_writer(), &log->add_writer()};
    log->start();
    std::atomic<int> dropped = 0;
    std::atomic<int> running = 2;
    std::vector<std::jthread> threads;
    for (int w = 0; w < 2; ++w)
        threads.emplace_back([&, w] {
            for (int i = 0; i < kRecords; ++i)
                dropped +=
                    !writers[w]->put(some_record(std::to_string(w) + "-" + std::to_string(i)));
            --running;
        });
    std::string all;
    int moved = 0;
    while (moved < kRotations || running > 0) {
        if (moved < kRotations && std::filesystem::exists(path_)) {
            std::filesystem::rename(path_, path_ + "." + std::to_string(moved++));
            log->reopen();
        }
        std::this_thread::sleep_for(1ms);
    }
    threads.clear();
    log->stop();
    for (int i = 0; i < moved; ++i) all += read_file(path_ + "." + std::to_string(i));
    all += read_file(path_);
    const auto ids = ids_of(all);
    EXPECT_EQ(ids.size() + static_cast<std::size_t>(dropped), 2U * kRecords);
    EXPECT_EQ(std::set<std::string>(ids.begin(), ids.end()).size(), ids.size()) << "a line twice";
    EXPECT_EQ(log->lines(), ids.size());
    EXPECT_EQ(log->lost(), 0U);
}

// A pipe that nobody reads: the worker goes on, what has no room is counted, and the end comes.
TEST_F(AccessLogTest, AStuckReaderStallsNobody) {
    int ends[2];
    ASSERT_EQ(::pipe(ends), 0);
    ASSERT_GT(::fcntl(ends[1], F_SETPIPE_SZ, 4096), 0);
    const auto log = open("/proc/self/fd/" + std::to_string(ends[1]));
    ASSERT_NE(log, nullptr);
    ::close(ends[1]);
    AccessLog::Writer& writer = log->add_writer();
    log->start();
    constexpr std::uint64_t kRecords = 3 * AccessLog::kRingRecords;
    std::uint64_t dropped = 0;
    for (std::uint64_t i = 0; i < kRecords; ++i) dropped += !writer.put(some_record("x"));
    EXPECT_GT(dropped, 0U);
    log->stop();
    EXPECT_GT(log->lost(), 0U);
    EXPECT_EQ(log->lines() + log->lost() + dropped, kRecords);
    ::close(ends[0]);
}

TEST_F(AccessLogTest, SamplesOnlyWhatEndedWell) {
    const auto log = open(path_, 10);
    ASSERT_NE(log, nullptr);
    AccessLog::Writer& writer = log->add_writer();
    std::uint32_t stands_for = 0;
    int logged = 0;
    for (int i = 0; i < 1000; ++i) {
        const std::uint32_t sample = writer.wanted(Outcome::Ok);
        stands_for += sample;
        logged += sample > 0;
    }
    EXPECT_EQ(logged, 100);
    EXPECT_EQ(stands_for, 1000U);
    for (const Outcome outcome : {Outcome::ClientError, Outcome::Timeout, Outcome::ClientGone})
        for (int i = 0; i < 50; ++i) EXPECT_EQ(writer.wanted(outcome), 1U);
}

TEST_F(AccessLogTest, AFileThatCannotBeOpenedIsAnError) {
    const auto log = AccessLog::open({folder_ + "/nowhere/access.log", 1}, {}, {});
    ASSERT_FALSE(log);
    EXPECT_NE(log.error().find("nowhere/access.log"), std::string::npos) << log.error();
    EXPECT_NE(log.error().find("No such file"), std::string::npos) << log.error();
}

// The file cannot be opened again: the old one goes on.
TEST_F(AccessLogTest, GoesOnWithTheOldFileWhenTheNewOneCannotBeOpened) {
    const auto log = open(path_);
    ASSERT_NE(log, nullptr);
    AccessLog::Writer& writer = log->add_writer();
    log->start();
    std::filesystem::rename(path_, path_ + ".1");
    std::filesystem::create_directory(path_);
    log->reopen();
    ASSERT_TRUE(writer.put(some_record("still")));
    log->stop();
    EXPECT_EQ(ids_of(read_file(path_ + ".1")), std::multiset<std::string>{"still"});
}

TEST_F(AccessLogTest, AFullDiskIsCounted) {
    if (::access("/dev/full", W_OK) != 0) GTEST_SKIP() << "no /dev/full";
    const auto log = open("/dev/full");
    ASSERT_NE(log, nullptr);
    AccessLog::Writer& writer = log->add_writer();
    log->start();
    for (int i = 0; i < 10; ++i) ASSERT_TRUE(writer.put(some_record("x")));
    log->stop();
    EXPECT_EQ(log->lines(), 0U);
    EXPECT_EQ(log->lost(), 10U);
}

}  // namespace
}  // namespace sluice::pd
