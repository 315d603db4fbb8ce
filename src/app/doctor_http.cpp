// SPDX-License-Identifier: Apache-2.0
#include "app/doctor_http.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>

#include "http/body_reader.h"
#include "http/head_collector.h"

namespace sluice::app {

namespace {

constexpr std::size_t kBodyMax = 4 << 20;  // /metrics of a busy engine is some hundred KiB

class Exchange {
public:
    explicit Exchange(const HttpQuestion& question)
        : question_(question), began_(MonotonicClock::now()), deadline_(began_ + question.limit) {}
    Exchange(const Exchange&) = delete;
    Exchange& operator=(const Exchange&) = delete;
    ~Exchange() {
        if (fd_ >= 0) ::close(fd_);
    }

    std::expected<HttpAnswer, HttpFailure> run() {
        if (auto connected = connect(); !connected)
            return failure(HttpFailure::Stage::Connect, connected.error());
        answer_.connect_time = MonotonicClock::now() - began_;
        if (auto sent = send_request(); !sent)
            return failure(HttpFailure::Stage::Exchange, sent.error());
        if (auto received = receive(); !received)
            return failure(received.error().code == Errc::ProtocolViolation
                               ? HttpFailure::Stage::Answer
                               : HttpFailure::Stage::Exchange,
                           received.error());
        answer_.total_time = MonotonicClock::now() - began_;
        return std::move(answer_);
    }

private:
    enum class Step : std::uint8_t { More, Done };

    std::unexpected<HttpFailure> failure(HttpFailure::Stage stage, const Error& error) const {
        return std::unexpected(HttpFailure{stage, error, fault_.empty() ? describe(error) : fault_,
                                           MonotonicClock::now() - began_});
    }

    Result<void> wait(short events) {
        const Duration left = deadline_ - MonotonicClock::now();
        const auto left_ms = std::chrono::ceil<std::chrono::milliseconds>(left).count();
        pollfd watched{fd_, events, 0};
        const int ready = left_ms <= 0 ? 0 : ::poll(&watched, 1, static_cast<int>(left_ms));
        if (ready == 0) return fail(Errc::Timeout);
        if (ready < 0 && errno != EINTR) return fail_errno();
        return {};
    }

    Result<void> connect() {
        fd_ = ::socket(question_.address.family(), SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
        if (fd_ < 0) return fail_errno();
        if (::connect(fd_, question_.address.raw(), question_.address.size()) == 0) return {};
        if (errno != EINPROGRESS) return fail_errno();
        TRY(wait(POLLOUT));
        int error = 0;
        socklen_t size = sizeof error;
        if (::getsockopt(fd_, SOL_SOCKET, SO_ERROR, &error, &size) != 0) return fail_errno();
        if (error != 0) return fail_errno(error);
        return {};
    }

    Result<void> send_request() {
        std::string request =
            "GET " + std::string(question_.path) +
            " HTTP/1.1\r\nHost: " + std::string(question_.host_header) +
            "\r\nUser-Agent: sluice-doctor\r\nAccept: */*\r\nConnection: close\r\n";
        if (!question_.api_key.empty())
            request += "Authorization: Bearer " + std::string(question_.api_key) + "\r\n";
        request += "\r\n";
        for (std::string_view rest = request; !rest.empty();) {
            const ssize_t sent = ::send(fd_, rest.data(), rest.size(), MSG_NOSIGNAL);
            if (sent > 0) {
                rest.remove_prefix(static_cast<std::size_t>(sent));
            } else if (errno == EAGAIN || errno == EINTR) {
                TRY(wait(POLLOUT));
            } else {
                return fail_errno();
            }
        }
        return {};
    }

    Result<void> receive() {
        while (true) {
            const BufferRef page = pool_.allocate_page();
            const ssize_t got = ::recv(fd_, page.data(), page.capacity(), 0);
            if (got < 0) {
                if (errno != EAGAIN && errno != EINTR) return fail_errno();
                TRY(wait(POLLIN));
                continue;
            }
            if (got == 0) return take_end();
            const auto step = take(Slice(page, 0, static_cast<std::uint32_t>(got)));
            if (!step) return std::unexpected(step.error());
            if (*step == Step::Done) return {};
        }
    }

    Result<Step> take(Slice bytes) {
        while (!in_body_) {
            switch (collector_.feed(std::move(bytes), pool_)) {
                case http::HeadCollector::State::NeedMore:
                    return Step::More;
                case http::HeadCollector::State::Bad:
                    return broken(collector_.error().message);
                case http::HeadCollector::State::Complete:
                    break;
            }
            if (const auto wrong = http::parse_response_head(collector_.take_head(), false, head_))
                return broken(wrong->message);
            bytes = collector_.take_rest();
            if (head_.status < 200) {  // an interim answer; the real one follows
                collector_.reset();
                if (bytes.empty()) return Step::More;
                continue;
            }
            in_body_ = true;
            answer_.status = head_.status;
            body_.start(head_.framing, head_.content_length);
            const bool empty = head_.framing == http::Framing::Length && head_.content_length == 0;
            if (head_.framing == http::Framing::None || empty) return Step::Done;
        }
        if (bytes.empty()) return Step::More;
        switch (body_.feed(std::move(bytes), Delegate<void(Slice)>::to<&Exchange::keep>(*this))) {
            case http::BodyReader::State::Complete:
                return Step::Done;
            case http::BodyReader::State::Bad:
                return broken(body_.fault());
            case http::BodyReader::State::NeedMore:
                break;
        }
        if (answer_.body.size() > kBodyMax) return broken("the answer is larger than 4 MiB");
        return Step::More;
    }

    Result<void> take_end() {
        if (!in_body_) return fail(Errc::ConnectionClosed);
        if (body_.end_of_stream() == http::BodyReader::State::Complete) return {};
        fault_ = "the connection ended in the middle of the answer";
        return fail(Errc::ConnectionClosed);
    }

    std::unexpected<Error> broken(const char* fault) {
        fault_ = fault;
        return fail(Errc::ProtocolViolation);
    }

    void keep(Slice bytes) { answer_.body.append(bytes.view()); }

    const HttpQuestion& question_;
    Instant began_;
    Instant deadline_;
    int fd_ = -1;
    BufferPool pool_{64 << 20};
    http::HeadCollector collector_;
    http::ResponseHead head_;
    http::BodyReader body_;
    HttpAnswer answer_;
    std::string fault_;
    bool in_body_ = false;
};

}  // namespace

std::expected<HttpAnswer, HttpFailure> http_get(const HttpQuestion& question) {
    return Exchange(question).run();
}

}  // namespace sluice::app
