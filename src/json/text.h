// SPDX-License-Identifier: Apache-2.0
// Writes JSON in the order in which it is asked to, as vLLM's answers have theirs.
//
//   JsonText json;  json.begin_object().member("id", id).key("choices").begin_array() ... ; use
//   json.text
//
// Threads: one. Owns: the text. Errors: none; bytes that are not UTF-8 become U+FFFD.
#pragma once

#include <concepts>
#include <cstdint>
#include <string>
#include <string_view>

namespace sluice::json {

// Appends `text` as a JSON string with its quotes.
void append_json_string(std::string& out, std::string_view text);

class JsonText {
public:
    std::string text;

    JsonText& begin_object() { return open('{'); }
    JsonText& end_object() { return close('}'); }
    JsonText& begin_array() { return open('['); }
    JsonText& end_array() { return close(']'); }

    JsonText& key(std::string_view name) {
        separate();
        append_json_string(text, name);
        text.push_back(':');
        first_ = true;
        return *this;
    }

    JsonText& raw(std::string_view json) {
        separate();
        text.append(json);
        return *this;
    }
    JsonText& value(std::string_view string) {
        separate();
        append_json_string(text, string);
        return *this;
    }
    JsonText& value(const std::string& string) { return value(std::string_view(string)); }
    JsonText& value(const char* string) { return value(std::string_view(string)); }
    JsonText& value(bool truth) { return raw(truth ? "true" : "false"); }
    template <std::integral Number>
    requires(!std::same_as<Number, bool>) JsonText& value(Number number) {
        return raw(std::to_string(number));
    }
    JsonText& value(std::nullptr_t) { return raw("null"); }

    template <class Value>
    JsonText& member(std::string_view name, const Value& of) {
        return key(name).value(of);
    }
    JsonText& member(std::string_view name, std::nullptr_t) { return key(name).raw("null"); }
    JsonText& raw_member(std::string_view name, std::string_view json) {
        return key(name).raw(json);
    }

private:
    JsonText& open(char c) {
        separate();
        text.push_back(c);
        first_ = true;
        return *this;
    }
    JsonText& close(char c) {
        text.push_back(c);
        first_ = false;
        return *this;
    }
    void separate() {
        if (!first_) text.push_back(',');
        first_ = false;
    }

    bool first_ = true;
};

}  // namespace sluice::json
