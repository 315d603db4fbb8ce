// SPDX-License-Identifier: Apache-2.0
// The binary as an operator meets it: help, exit codes, mistakes, the doctor.
#include <gtest/gtest.h>

#include <linux/filter.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstddef>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>

#include "support/process.h"

namespace sluice::test {
namespace {

using Words = std::vector<std::string>;

struct Outcome {
    int status = -1;
    std::string out;
    std::string err;
};

class Cli : public testing::Test {
protected:
    Cli()
        : folder_(std::filesystem::path(testing::TempDir()) /
                  ("sluice-cli-" + std::to_string(::getpid()))) {
        std::filesystem::create_directories(folder_);
    }
    ~Cli() override { std::filesystem::remove_all(folder_); }

    std::string path(const std::string& name) const { return folder_ / name; }

    // Through a shell, which keeps the two outputs apart.
    Outcome run(const Words& arguments,
                const std::map<std::string, std::string>& environment = {}) const {
        Words command{
            "/bin/sh",    "-c",        R"(out=$1; err=$2; shift 2; exec "$@" >"$out" 2>"$err")",
            "sh",         path("out"), path("err"),
            SLUICE_BINARY};
        command.insert(command.end(), arguments.begin(), arguments.end());
        Process process(command, path("log"), environment);
        Outcome outcome;
        outcome.status = process.wait(30);
        outcome.out = read("out");
        outcome.err = read("err");
        return outcome;
    }

    std::string read(const std::string& name) const {
        std::ostringstream text;
        text << std::ifstream(path(name)).rdbuf();
        return text.str();
    }

    std::filesystem::path folder_;
};

bool holds(const std::string& text, const std::string& part) {
    return text.find(part) != std::string::npos;
}

TEST_F(Cli, HelpGoesToStandardOutput) {
    const std::pair<Words, std::string> cases[] = {
        {{"--help"}, "doctor"},
        {{"-h"}, "engine"},
        {{"proxy", "--help"}, "--first-token-timeout"},
        {{"engine", "--help"}, "--kv-transfer-config"},
        {{"doctor", "--help"}, "--json"},
        {{"load", "--help"}, "--prompt-bytes"},
    };
    for (const auto& [words, text] : cases) {
        const Outcome outcome = run(words);
        EXPECT_EQ(outcome.status, 0) << words[0];
        EXPECT_TRUE(holds(outcome.out, text)) << words[0] << "\n" << outcome.out;
        EXPECT_EQ(outcome.err, "");
    }
}

TEST_F(Cli, VersionIsTold) {
    const Outcome outcome = run({"--version"});
    EXPECT_EQ(outcome.status, 0);
    EXPECT_TRUE(outcome.out.starts_with("sluice ")) << outcome.out;
}

TEST_F(Cli, MistakesGoToStandardErrorWithStatusTwo) {
    const std::pair<Words, std::string> cases[] = {
        {{}, "usage: sluice"},
        {{"prox"}, "\"prox\" is not a command"},
        {{"proxy"}, "no decode instance"},
        {{"proxy", "--prot", "1"},
         "sluice proxy: unknown argument \"--prot\"; did you mean --port?"},
        {{"proxy", "--port", "x"}, "--port: \"x\" is not a whole number between 1 and 65535"},
        {{"proxy", "--decode", "ftp://x"}, "\"ftp://x\""},
        {{"proxy", "--config", "/nonexistent"}, "\"/nonexistent\""},
        {{"doctor", "--jsn"}, "did you mean --json?"},
        {{"engine", "m", "--prt", "1"}, "--prt"},
        {{"load", "ftp://x"}, "\"ftp://x\""},
        {{"load", "--conections", "3"}, "did you mean --connections?"},
        {{"load", "--prompt-bytes", "many"}, "--prompt-bytes: \"many\" is not one of N, uniform:"},
        {{"load", "--output-tokens", "0"}, "--output-tokens: \"0\""},
        {{"load", "--cpus", "3-1"}, "--cpus: \"1\""},
        {{"load", "--pid", "x"}, "--pid: \"x\""},
        {{"load", "--header", "nothing"}, "--header: \"nothing\""},
        {{"load", "--extra-body", "[]"}, "--extra-body: \"[]\""},
        {{"load", "--threads", "3", "-c", "2"}, "--threads: 3 is more than --connections, 2"},
    };
    for (const auto& [words, text] : cases) {
        const Outcome outcome = run(words);
        EXPECT_EQ(outcome.status, 2) << text;
        EXPECT_TRUE(holds(outcome.err, text)) << outcome.err << "\n  instead of " << text;
        EXPECT_EQ(outcome.out, "") << text;
    }
}

TEST_F(Cli, CheckConfigPrintsWhatCountsAndStartsNothing) {
    std::ofstream(path("sluice.toml"))
        << "prefill = [[\"http://127.0.0.1:8010\", 8999]]\ndecode = [\"http://127.0.0.1:8020\"]\n"
        << "max-in-flight = 100\nupstream-api-key = \"secret\"\n";
    const Outcome outcome =
        run({"proxy", "--config", path("sluice.toml"), "--check-config", "--port", "9001"},
            {{"VLLM_LOGGING_LEVEL", "DEBUG"}});
    EXPECT_EQ(outcome.status, 0) << outcome.err;
    for (const char* line :
         {"\nmax-in-flight = 100\n", "\nport = 9001\n", "\nlog-level = \"debug\"\n",
          "\nretries = 2\n", "bootstrap http://127.0.0.1:8999\n"})
        EXPECT_TRUE(holds(outcome.out, line)) << line << outcome.out;
    EXPECT_FALSE(holds(outcome.out + outcome.err, "secret"));
}

TEST_F(Cli, FileWithAMistakeIsBlamedOnItsLine) {
    std::ofstream(path("sluice.toml")) << "# mine\nmax-in-fligth = 100\n";
    const Outcome outcome = run({"proxy", "--config", path("sluice.toml"), "--decode", "http://d"});
    EXPECT_EQ(outcome.status, 2);
    EXPECT_TRUE(holds(
        outcome.err, "sluice.toml:2: unknown key \"max-in-fligth\"; did you mean --max-in-flight?"))
        << outcome.err;
}

TEST_F(Cli, DoctorFailsWhereNothingListens) {
    const std::string nobody = "http://127.0.0.1:" + std::to_string(free_port());
    const std::string listen = std::to_string(free_port());
    const Words words{"doctor", "--prefill", nobody, "none", "--decode", nobody, "--port", listen};
    const Outcome outcome = run(words);
    EXPECT_EQ(outcome.status, 1) << outcome.out << outcome.err;
    EXPECT_TRUE(holds(outcome.out, "FAIL  prefill " + nobody)) << outcome.out;
    EXPECT_TRUE(holds(outcome.out, "Nothing listens there")) << outcome.out;
    EXPECT_TRUE(holds(outcome.out, "\nOK    listen 127.0.0.1:" + listen)) << outcome.out;

    Words json = words;
    json.emplace_back("--json");
    const auto report = nlohmann::json::parse(run(json).out, nullptr, false);
    ASSERT_TRUE(report.is_object());
    EXPECT_EQ(report["fail"], 2);
    EXPECT_EQ(report["findings"].size(),
              report["ok"].get<int>() + report["warn"].get<int>() + report["fail"].get<int>());
}

TEST_F(Cli, DoctorIsContentWithAWorkingPair) {
    const int prefill = free_port();
    const int bootstrap = free_port();
    const int decode = free_port();
    const auto engine = [&](int port, const std::string& role) {
        return std::make_unique<Process>(
            Words{SLUICE_BINARY, "engine", "test-model", "--host", "127.0.0.1", "--port",
                  std::to_string(port), "--kv-transfer-config",
                  R"({"kv_connector":"MooncakeConnector","kv_role":")" + role + "\"}"},
            path(role),
            std::map<std::string, std::string>{
                {"VLLM_MOONCAKE_BOOTSTRAP_PORT", std::to_string(bootstrap)}});
    };
    const auto producer = engine(prefill, "kv_producer");
    const auto consumer = engine(decode, "kv_consumer");
    ASSERT_TRUE(wait_until_ok(prefill, "/health", 30)) << producer->log();
    ASSERT_TRUE(wait_until_ok(decode, "/health", 30)) << consumer->log();
    ASSERT_TRUE(wait_until_ok(bootstrap, "/query", 30)) << producer->log();
    const Words words{"doctor",
                      "--prefill",
                      "http://127.0.0.1:" + std::to_string(prefill),
                      std::to_string(bootstrap),
                      "--decode",
                      "http://localhost:" + std::to_string(decode),
                      "--port",
                      std::to_string(free_port())};
    const Outcome outcome = run(words);
    EXPECT_EQ(outcome.status, 0) << outcome.out << outcome.err;
    for (const char* text : {"serves test-model", "mooncake, bootstrap server at", "dp rank(s)",
                             "localhost is 127.0.0.1", " 0 FAIL"})
        EXPECT_TRUE(holds(outcome.out, text)) << text << "\n" << outcome.out;

    consumer->signal(SIGKILL);
    consumer->wait(5);
    EXPECT_EQ(run(words).status, 1);
}

// As in a container whose seccomp profile knows nothing of io_uring. The filter is this thread's
// and its children's, for good, so a process of its own sets it.
TEST_F(Cli, WithoutIoUringItSaysWhyAndWhatToDo) {
    const pid_t child = ::fork();
    if (child == 0) {
        sock_filter rules[] = {
            BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr)),
            BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_io_uring_setup, 0, 1),
            BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
            BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
        };
        sock_fprog filter{static_cast<unsigned short>(std::size(rules)), rules};
        if (::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 ||
            ::prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter) != 0)
            ::_exit(77);
        const Outcome proxy = run({"proxy", "--port", std::to_string(free_port()), "--prefill",
                                   "http://127.0.0.1:1", "none", "--decode", "http://127.0.0.1:1"});
        const Outcome doctor = run({"doctor"});
        const std::string_view words = "a seccomp profile that allows io_uring_setup";
        const bool told = proxy.err.find(words) != std::string::npos &&
                          (doctor.out + doctor.err).find(words) != std::string::npos;
        if (!told)
            std::fprintf(stderr, "%d %s%s\n%d %s%s\n", proxy.status, proxy.out.c_str(),
                         proxy.err.c_str(), doctor.status, doctor.out.c_str(), doctor.err.c_str());
        ::_exit(told && proxy.status == 1 && doctor.status == 1 ? 0 : 1);
    }
    int status = 0;
    ASSERT_EQ(::waitpid(child, &status, 0), child);
    ASSERT_TRUE(WIFEXITED(status));
    if (WEXITSTATUS(status) == 77) GTEST_SKIP() << "no seccomp filter can be set here";
    EXPECT_EQ(WEXITSTATUS(status), 0);
}

}  // namespace
}  // namespace sluice::test
