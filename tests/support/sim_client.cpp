// SPDX-License-Identifier: Apache-2.0
#include "support/sim_client.h"

#include "support/sim_pd.h"

namespace sluice::test {

SimClient::SimClient(io::Loop& loop, const io::Address& proxy, Rng& rng,
                     const ClientManners& manners, ClientTally& tally, std::uint64_t first_id,
                     int requests)
    : loop_(loop),
      proxy_(proxy),
      rng_(rng),
      manners_(manners),
      tally_(tally),
      id_(first_id),
      left_(requests),
      stream_(loop, *this),
      texts_(loop.buffers()),
      leave_timer_(Delegate<void()>::to<&SimClient::leave>(*this)),
      read_timer_(Delegate<void()>::to<&SimClient::resume>(*this)) {}

void SimClient::start() {
    collector_.reset();
    input_.clear();
    waiting_ = in_body_ = false;
    const auto started = stream_.connect(proxy_);
    ASSERT(started.has_value());
    stream_.set_reading(true);
}

std::string SimClient::describe() const {
    return "request " + std::to_string(id_) + (waiting_ ? ", waiting" : "") +
           (in_body_ ? ", in the body" : "") + (stream_.is_open() ? ", open" : "") +
           (stream_.idle() ? ", idle" : "") + (stream_.closing() ? ", closing" : "") +
           (stream_.reading() ? "" : ", not reading") + ", unsent " +
           std::to_string(stream_.unsent()) + ", got " + body_.substr(0, 100);
}

void SimClient::on_connected() { ask(); }

void SimClient::ask() {
    ++id_;
    --left_;
    ++tally_.asked;
    waiting_ = true;
    in_body_ = false;
    body_.clear();
    bad_ = rng_.chance(manners_.bad_request);
    streamed_ = rng_.chance(0.6);
    std::string body = "{\"model\":\"m\",\"id\":" + std::to_string(id_) +
                       ",\"stream\":" + (streamed_ ? "true" : "false") +
                       ",\"messages\":[{\"role\":\"user\",\"content\":\"";
    body += std::string(rng_.below(manners_.filler_max + 1), 'x');
    body += "\"}]";
    if (rng_.chance(manners_.smuggle_kv)) body += R"(,"kv_transfer_params":{"remote_host":"evil"})";
    if (rng_.chance(manners_.smuggle_kv))
        body += R"(,"kv\u005ftransfer_params":{"remote_host":"evil2"})";
    if (rng_.chance(0.3)) body += R"(,"max_tokens":77)";
    if (rng_.chance(0.1)) body += R"(,"n":2)";
    body += bad_ ? "" : "}";  // a bad one is not JSON
    std::string head =
        "POST /v1/chat/completions HTTP/1.1\r\nHost: proxy\r\nContent-Type: application/json\r\n";
    std::string wire;
    if (rng_.chance(0.3)) {
        wire = head + "Transfer-Encoding: chunked\r\n\r\n";
        std::string_view rest = body;
        while (!rest.empty()) {
            const std::size_t part = std::min<std::size_t>(rest.size(), rng_.between(1, 3000));
            char size[24];
            std::snprintf(size, sizeof size, "%zx\r\n", part);
            wire += size + std::string(rest.substr(0, part)) + "\r\n";
            rest.remove_prefix(part);
        }
        wire += "0\r\n\r\n";
    } else {
        wire = head + "Content-Length: " + std::to_string(body.size()) + "\r\n\r\n" + body;
    }
    // A second smuggled spelling next to the first is a duplicate, which is the client's fault.
    bad_ = bad_ ||
           (body.find("evil2") != std::string::npos && body.find("evil\"") != std::string::npos);
    for (std::string_view rest = wire; !rest.empty();) {
        TextWriter writer(texts_);
        writer.append(rest.substr(0, 8000));
        stream_.send(writer.finish());
        rest.remove_prefix(std::min<std::size_t>(8000, rest.size()));
    }
    if (rng_.chance(manners_.leave))
        loop_.arm(leave_timer_, std::chrono::microseconds(rng_.below(60000)));
}

void SimClient::leave() {
    if (!waiting_) return;
    ++tally_.left;
    waiting_ = false;
    stream_.close(rng_.chance(0.5));
}

void SimClient::on_bytes(Slice bytes) {
    input_.push(std::move(bytes));
    while (!input_.empty() && stream_.is_open()) {
        Slice first = input_[0];
        input_.pop_bytes(first.size);
        take(std::move(first));
    }
    if (rng_.chance(manners_.slow_reader)) {
        stream_.set_reading(false);
        loop_.arm(read_timer_, std::chrono::milliseconds(rng_.below(50)));
    }
}

void SimClient::take(Slice bytes) {
    if (!waiting_) {
        tally_.violations.push_back("an answer nobody asked for");
        return stream_.close();
    }
    if (!in_body_) {
        switch (collector_.feed(std::move(bytes), loop_.buffers())) {
            case http::HeadCollector::State::NeedMore:
                return;
            case http::HeadCollector::State::Bad:
                tally_.violations.push_back("an answer without a valid head");
                waiting_ = false;
                return stream_.close();
            case http::HeadCollector::State::Complete:
                break;
        }
        Slice head = collector_.take_head();
        bytes = collector_.take_rest();
        if (http::parse_response_head(std::move(head), false, head_)) {
            tally_.violations.push_back("an answer with an invalid head");
            waiting_ = false;
            return stream_.close();
        }
        reader_.start(head_.framing, head_.content_length);
        in_body_ = true;
        if (head_.framing == http::Framing::Length && head_.content_length == 0)
            return answer_complete();
    }
    switch (reader_.feed(std::move(bytes), Delegate<void(Slice)>::to<&SimClient::append>(*this))) {
        case http::BodyReader::State::NeedMore:
            return;
        case http::BodyReader::State::Bad:
            tally_.violations.push_back("an answer with invalid framing");
            waiting_ = false;
            return stream_.close();
        case http::BodyReader::State::Complete:
            input_.push_front(reader_.take_rest());
            return answer_complete();
    }
}

void SimClient::answer_complete() {
    waiting_ = false;
    leave_timer_.cancel();
    if (head_.status == 200) {
        if (bad_) tally_.violations.push_back("a bad request was served");
        const std::string expected =
            streamed_ ? expected_stream(id_, kSimEvents) : expected_plain(id_);
        // Comments are the server's to send or not.
        std::string got = body_;
        for (auto at = got.find(": keep-alive\n\n"); at != std::string::npos;
             at = got.find(": keep-alive\n\n"))
            got.erase(at, 14);
        if (got == expected) {
            ++tally_.right;
        } else {
            tally_.violations.push_back(
                "request " + std::to_string(id_) +
                ": wrong bytes in a complete answer: " + got.substr(0, 300));
        }
    } else {
        const bool known = head_.status == 400 || head_.status == 404 || head_.status == 429 ||
                           (head_.status >= 500 && head_.status <= 504);
        if (!known || body_.find("\"error\"") == std::string::npos)
            tally_.violations.push_back("a strange refusal: " + std::to_string(head_.status) + " " +
                                        body_);
        ++tally_.refused;
    }
    const bool reusable = head_.keep_alive;
    head_.bytes = Slice();
    if (!reusable) return stream_.close();
    if (left_ > 0) return ask();
    stream_.close();
}

// The connection ended before the answer did. What came of it must be a beginning of the right
// answer, and if it ends with an error event, that is the proxy's.
void SimClient::broken() {
    if (!waiting_) return;
    waiting_ = false;
    ++tally_.broken;
    if (!in_body_ || head_.status != 200 || bad_) return;
    std::string got = body_;
    const auto error = got.find("data: {\"error\"");
    if (error != std::string::npos) got.erase(error);
    for (auto at = got.find(": keep-alive\n\n"); at != std::string::npos;
         at = got.find(": keep-alive\n\n"))
        got.erase(at, 14);
    // The cut may have come within a comment.
    for (std::string_view begun = ": keep-alive\n"; !begun.empty(); begun.remove_suffix(1))
        if (got.ends_with(begun)) {
            got.erase(got.size() - begun.size());
            break;
        }
    const std::string expected = streamed_ ? expected_stream(id_, kSimEvents) : expected_plain(id_);
    if (!std::string_view(expected).starts_with(got))
        tally_.violations.push_back("request " + std::to_string(id_) +
                                    ": wrong bytes in a broken answer: " + got);
}

void SimClient::on_end() {
    broken();
    stream_.close();
}

void SimClient::on_broken(Error) {
    broken();
    stream_.close();
}

void SimClient::on_closed() {
    leave_timer_.cancel();
    read_timer_.cancel();
    collector_.reset();
    input_.clear();
    head_.bytes = Slice();
    if (left_ > 0) {
        start();
    } else {
        finished_ = true;
    }
}

}  // namespace sluice::test
