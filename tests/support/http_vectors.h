// SPDX-License-Identifier: Apache-2.0
// HTTP vectors: bytes and what becomes of them, as data. One list for the parser, the server and
// the client, the simulated proxy and the real one (tests/vectors/at_proxy.h). The files are
// tests/vectors/http/*.vec:
//
//   == smuggling-cl-te                  a name, unique in all files
//   why: RFC 9112 6.1: ...              one line: the rule
//   > POST / HTTP/1.1                   a request's line; its CRLF is understood
//   >> hello                            a request's bytes, as they are
//   accept method=POST ...              the verdict on each message, in order
//
// `<` and `<<` in their place are an answer's bytes, as an upstream server sends them and then
// closes. `to HEAD` says what was asked. `chunked` stands for the head of a chunked request. `#`
// begins a comment. Escapes in bytes and values: \r \n \t \0 \s (blank) \\ \" \xNN, and \{N*text}
// for N times text.
//
// Verdicts on requests:
//   accept [method=GET] [path=/] [query=] [version=1] [framing=none|length|chunked] [body="..."]
//   [keep=yes|no]
//          [expect=yes]                 what is not named has its default (the first, or the empty
//          one)
//   reject STATUS                       answered so, and the connection is closed
//   more                                not complete: nothing is answered
// After keep=no and reject nothing more is read. Lines "| Name: value" behind the last accept name
// fields it has.
//
// Verdicts on answers:
//   accept [status=200] [version=1] [framing=none|length|chunked|close] [body="..."] [reuse=yes]
//                                       reuse: the connection may serve another request
//   reject 502                          not HTTP
//   cut                                 the connection ended inside it
//
// Instead: `copy` and "| Name: value" lines, all fields that a proxy passes on of the first
// message. Body limit: kVectorBodyMax.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace sluice::test {

inline constexpr std::uint64_t kVectorBodyMax = 65536;

// What happened to one message, or is to happen.
struct Verdict {
    enum class Kind : std::uint8_t { Accept, Reject, More, Cut };
    Kind kind = Kind::Accept;
    bool is_request = true;
    int status = 0;  // of a refusal or an answer
    std::string method = "GET";
    std::string path = "/";
    std::string query;
    int minor_version = 1;
    std::string framing = "none";
    std::string body;
    bool keep = true;
    bool expect = false;
    bool reuse = false;

    // One line, so that two are easily compared and shown.
    std::string text() const;
};

struct HttpVector {
    std::string name;
    std::string why;
    std::string place;  // file:line
    std::string bytes;
    bool is_request = true;
    bool to_head = false;
    bool is_copy = false;
    std::vector<Verdict> verdicts;
    std::vector<std::string> fields;  // "Name: value"
};

// All vectors below tests/vectors/http, which is looked for from the working directory and from
// this file's place. Errors: throws std::runtime_error with file and line.
std::vector<HttpVector> load_http_vectors();

// At which places to cut the bytes in two: everywhere; in long ones near both ends and here and
// there.
std::vector<std::size_t> cutting_places(const std::string& bytes);

}  // namespace sluice::test
