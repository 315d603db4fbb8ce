// SPDX-License-Identifier: Apache-2.0
#include "support/http_vectors.h"

#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <map>
#include <set>
#include <stdexcept>

namespace sluice::test {

namespace {

class Reader {
public:
    Reader(const std::filesystem::path& path, std::vector<HttpVector>& out)
        : file_(path), name_(path.filename().string()), out_(out) {
        if (!file_) fail("cannot be read");
    }

    void run() {
        std::string line;
        while (std::getline(file_, line)) {
            ++number_;
            take(line);
        }
        finish();
    }

private:
    [[noreturn]] void fail(const std::string& what) const {
        throw std::runtime_error(name_ + ":" + std::to_string(number_) + ": " + what);
    }

    void take(const std::string& line) {
        if (line.empty() || line[0] == '#') return;
        const std::string word = line.substr(0, line.find(' '));
        const std::string rest = word.size() == line.size() ? "" : line.substr(word.size() + 1);
        if (word == "==") return begin(rest);
        if (!open_) fail("a line before the first vector");
        if (word == "why:") {
            now_.why = rest;
        } else if (word == ">" || word == ">>" || word == "<" || word == "<<") {
            now_.is_request = word[0] == '>';
            now_.bytes += unescape(rest) + (word.size() == 1 ? "\r\n" : "");
        } else if (word == "chunked") {
            now_.bytes += "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
        } else if (word == "to" && rest == "HEAD") {
            now_.to_head = true;
        } else if (word == "copy") {
            now_.is_copy = true;
        } else if (word == "|") {
            now_.fields.push_back(unescape(rest));
        } else {
            now_.verdicts.push_back(read_verdict(word, rest));
        }
    }

    void begin(const std::string& name) {
        finish();
        now_ = HttpVector();
        now_.name = name;
        now_.place = name_ + ":" + std::to_string(number_);
        open_ = true;
    }

    void finish() {
        if (!open_) return;
        open_ = false;
        if (now_.why.empty()) fail("'" + now_.name + "' does not say why");
        if (now_.verdicts.empty() != now_.is_copy)
            fail("'" + now_.name + "' needs verdicts, or copy");
        out_.push_back(std::move(now_));
    }

    Verdict read_verdict(const std::string& word, std::string rest) const {
        Verdict verdict;
        verdict.is_request = now_.is_request;
        if (word == "reject") {
            verdict.kind = Verdict::Kind::Reject;
            verdict.status = std::stoi(rest);
            return verdict;
        }
        if (word == "more" || word == "cut") {
            verdict.kind = word == "more" ? Verdict::Kind::More : Verdict::Kind::Cut;
            return verdict;
        }
        if (word != "accept") fail("'" + word + "' is not known here");
        if (!now_.is_request) verdict.status = 200;
        while (!rest.empty()) {
            const auto equals = rest.find('=');
            if (equals == std::string::npos) fail("a value without '='");
            const std::string key = rest.substr(0, equals);
            rest.erase(0, equals + 1);
            std::size_t end = 0;
            if (rest[0] == '"') {
                rest.erase(0, 1);
                while (end < rest.size() && rest[end] != '"') end += rest[end] == '\\' ? 2 : 1;
                if (end >= rest.size()) fail("a quote that does not end");
            } else {
                end = std::min(rest.find(' '), rest.size());
            }
            set(verdict, key, unescape(rest.substr(0, end)));
            rest.erase(0, end);
            rest.erase(0, std::min(rest.find_first_not_of("\" "), rest.size()));
        }
        return verdict;
    }

    void set(Verdict& verdict, const std::string& key, const std::string& value) const {
        if (key == "method")
            verdict.method = value;
        else if (key == "path")
            verdict.path = value;
        else if (key == "query")
            verdict.query = value;
        else if (key == "version")
            verdict.minor_version = std::stoi(value);
        else if (key == "framing")
            verdict.framing = value;
        else if (key == "body")
            verdict.body = value;
        else if (key == "keep")
            verdict.keep = value == "yes";
        else if (key == "expect")
            verdict.expect = value == "yes";
        else if (key == "status")
            verdict.status = std::stoi(value);
        else if (key == "reuse")
            verdict.reuse = value == "yes";
        else
            fail("'" + key + "' is not known here");
    }

    std::string unescape(std::string_view text) const {
        std::string plain;
        for (std::size_t i = 0; i < text.size(); ++i) {
            if (text[i] != '\\') {
                plain += text[i];
                continue;
            }
            if (++i == text.size()) fail("a backslash at the end");
            switch (text[i]) {
                case 'r':
                    plain += '\r';
                    break;
                case 'n':
                    plain += '\n';
                    break;
                case 't':
                    plain += '\t';
                    break;
                case '0':
                    plain += '\0';
                    break;
                case 's':
                    plain += ' ';
                    break;
                case '\\':
                    plain += '\\';
                    break;
                case '"':
                    plain += '"';
                    break;
                case 'x':
                    plain += static_cast<char>(
                        std::stoi(std::string(text.substr(i + 1, 2)), nullptr, 16));
                    i += 2;
                    break;
                case '{': {
                    const auto star = text.find('*', i);
                    const auto end = text.find('}', i);
                    if (end == std::string_view::npos || star > end)
                        fail("\\{N*text} is not complete");
                    const int times = std::stoi(std::string(text.substr(i + 1, star - i - 1)));
                    const std::string part = unescape(text.substr(star + 1, end - star - 1));
                    for (int n = 0; n < times; ++n) plain += part;
                    i = end;
                    break;
                }
                default:
                    fail(std::string("\\") + text[i] + " is not known");
            }
        }
        return plain;
    }

    std::ifstream file_;
    std::string name_;
    std::vector<HttpVector>& out_;
    HttpVector now_;
    bool open_ = false;
    int number_ = 0;
};

std::string shown(const std::string& bytes) {
    std::string text;
    for (const char c : bytes.substr(0, 200)) {
        if (c >= ' ' && c < 127) {
            text += c;
            continue;
        }
        char hex[8];
        std::snprintf(hex, sizeof hex, "\\x%02x",
                      static_cast<unsigned>(static_cast<unsigned char>(c)));
        text += hex;
    }
    if (bytes.size() > 200) {
        text += "... " + std::to_string(bytes.size()) + " bytes, hash ";
        text += std::to_string(std::hash<std::string>()(bytes));
    }
    return text;
}

}  // namespace

std::string Verdict::text() const {
    switch (kind) {
        case Kind::Reject:
            return "reject " + std::to_string(status);
        case Kind::More:
            return "more";
        case Kind::Cut:
            return "cut";
        case Kind::Accept:
            break;
    }
    std::string line = "accept";
    if (is_request) {
        line += " method=" + method + " path=" + shown(path) + " query=" + query;
        line += std::string(" keep=") + (keep ? "yes" : "no") + (expect ? " expect=yes" : "");
    } else {
        line += " status=" + std::to_string(status) + (reuse ? " reuse=yes" : "");
    }
    return line + " version=" + std::to_string(minor_version) + " framing=" + framing +
           " body=" + shown(body);
}

std::vector<HttpVector> load_http_vectors() {
    std::filesystem::path folder = "tests/vectors/http";
    if (!std::filesystem::is_directory(folder))
        folder = std::filesystem::path(__FILE__).parent_path().parent_path() / "vectors/http";
    std::vector<std::filesystem::path> files;
    for (const auto& entry : std::filesystem::directory_iterator(folder))
        if (entry.path().extension() == ".vec") files.push_back(entry.path());
    std::ranges::sort(files);
    std::vector<HttpVector> vectors;
    for (const auto& file : files) Reader(file, vectors).run();
    std::set<std::string> names;
    for (const HttpVector& vector : vectors)
        if (!names.insert(vector.name).second)
            throw std::runtime_error(vector.place + ": the name is not unique");
    return vectors;
}

std::vector<std::size_t> cutting_places(const std::string& bytes) {
    constexpr std::size_t kAllOfThem = 1500;
    constexpr std::size_t kNearEnds = 120;
    constexpr std::size_t kStep = 997;
    std::vector<std::size_t> places;
    for (std::size_t at = 1; at < bytes.size(); ++at)
        if (bytes.size() <= kAllOfThem || at < kNearEnds || bytes.size() - at < kNearEnds ||
            at % kStep == 0)
            places.push_back(at);
    return places;
}

}  // namespace sluice::test
