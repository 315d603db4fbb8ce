// SPDX-License-Identifier: Apache-2.0
#include "engine/api/body.h"

#include <charconv>
#include <cmath>

#include "http/head.h"

namespace sluice::engine {

namespace {

constexpr int kDepthMax = 64;  // of nested arrays and objects; writing JSON recurses

// Deeper bodies are refused before they are parsed.
bool too_deep(std::string_view text) {
    int depth = 0;
    bool in_string = false;
    for (std::size_t i = 0; i < text.size(); ++i) {
        const char c = text[i];
        if (in_string) {
            if (c == '\\')
                ++i;
            else if (c == '"')
                in_string = false;
        } else if (c == '"') {
            in_string = true;
        } else if (c == '[' || c == '{') {
            if (++depth > kDepthMax) return true;
        } else if (c == ']' || c == '}') {
            --depth;
        }
    }
    return false;
}

template <typename Number>
std::optional<Number> whole_number(const Json& text) {
    const auto& digits = text.get_ref<const std::string&>();
    Number number{};
    const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), number);
    if (error != std::errc() || end != digits.data() + digits.size()) return std::nullopt;
    return number;
}

}  // namespace

std::expected<Json, ApiError> parse_body(std::string_view text) {
    const auto broken = [](std::size_t place, std::string_view reason) {
        return std::unexpected(invalid_body({"json_invalid", std::to_string(place),
                                             "JSON decode error", "<dict of 0 items>", reason}));
    };
    if (text.find_first_not_of(" \t\r\n") == std::string_view::npos)
        return std::unexpected(invalid_body({"missing", "", "Field required", "None"}));
    if (too_deep(text)) return broken(0, "{'error': 'Expecting value'}");
    Json body;
    try {
        body = Json::parse(text);
    } catch (const Json::parse_error& error) {
        const std::size_t place = error.byte > 0 ? error.byte - 1 : 0;
        const bool wants_name =
            text.substr(0, place).find_last_of("{,") != std::string_view::npos &&
            (text[text.substr(0, place).find_last_not_of(" \t\r\n")] == '{');
        return broken(place, wants_name
                                 ? "{'error': 'Expecting property name enclosed in double quotes'}"
                                 : "{'error': 'Expecting value'}");
    } catch (const Json::exception&) {
        return broken(0, "{'error': 'Expecting value'}");  // a number out of range
    }
    if (body.is_null())
        return std::unexpected(invalid_body({"missing", "", "Field required", "None"}));
    if (!body.is_object())
        return std::unexpected(
            invalid_body({"model_attributes_type", "",
                          "Input should be a valid dictionary or object to extract fields from",
                          python_input(&body)}));
    return body;
}

std::string python_input(const Json* value) {
    if (value == nullptr || value->is_null()) return "None";
    if (value->is_string()) return value->get<std::string>();
    if (value->is_boolean()) return value->get<bool>() ? "True" : "False";
    if (value->is_object()) return "<dict of " + std::to_string(value->size()) + " items>";
    if (value->is_array()) return "<list of " + std::to_string(value->size()) + " items>";
    return stable_text(*value);
}

const Json* find_member(const Json& object, const char* name) {
    const auto found = object.find(name);
    return found == object.end() || found->is_null() ? nullptr : &*found;
}

std::optional<std::int64_t> integer_member(const Json& object, const char* name) {
    const Json* value = find_member(object, name);
    if (value == nullptr) return std::nullopt;
    if (value->is_number_unsigned()) {
        const auto number = value->get<std::uint64_t>();
        return static_cast<std::int64_t>(std::min<std::uint64_t>(number, INT64_MAX));
    }
    if (value->is_number_integer()) return value->get<std::int64_t>();
    if (value->is_number_float()) {
        const double number = value->get<double>();
        if (std::floor(number) == number && std::fabs(number) < 9e15)
            return static_cast<std::int64_t>(number);
        refuse(invalid_body({"int_from_float", name,
                             "Input should be a valid integer, got a number with a fractional part",
                             python_input(value)}));
    }
    if (value->is_boolean()) return value->get<bool>() ? 1 : 0;
    if (!value->is_string())
        refuse(invalid_body(
            {"int_type", name, "Input should be a valid integer", python_input(value)}));
    if (const auto number = whole_number<std::int64_t>(*value)) return number;  // "5" is 5
    refuse(invalid_body({"int_parsing", name,
                         "Input should be a valid integer, unable to parse string as an integer",
                         python_input(value)}));
}

std::optional<double> number_member(const Json& object, const char* name) {
    const Json* value = find_member(object, name);
    if (value == nullptr) return std::nullopt;
    if (value->is_number()) return value->get<double>();
    if (!value->is_string())
        refuse(invalid_body(
            {"float_type", name, "Input should be a valid number", python_input(value)}));
    if (const auto number = whole_number<double>(*value)) return number;
    refuse(invalid_body({"float_parsing", name,
                         "Input should be a valid number, unable to parse string as a number",
                         python_input(value)}));
}

bool bool_member(const Json& object, const char* name, bool otherwise) {
    const Json* value = find_member(object, name);
    if (value == nullptr) return otherwise;
    if (value->is_boolean()) return value->get<bool>();
    if (value->is_number_integer() && (*value == 0 || *value == 1)) return *value == 1;
    if (!value->is_string() && !value->is_number_integer())
        refuse(invalid_body(
            {"bool_type", name, "Input should be a valid boolean", python_input(value)}));
    if (value->is_string()) {
        const std::string_view text = value->get_ref<const std::string&>();
        for (const std::string_view yes : {"1", "t", "true", "y", "yes", "on"})
            if (http::equals_ignoring_case(text, yes)) return true;
        for (const std::string_view no : {"0", "f", "false", "n", "no", "off"})
            if (http::equals_ignoring_case(text, no)) return false;
    }
    refuse(invalid_body({"bool_parsing", name,
                         "Input should be a valid boolean, unable to interpret input",
                         python_input(value)}));
}

std::optional<std::string> string_member(const Json& object, const char* name) {
    const Json* value = find_member(object, name);
    if (value == nullptr) return std::nullopt;
    if (!value->is_string())
        refuse(invalid_body(
            {"string_type", name, "Input should be a valid string", python_input(value)}));
    return value->get<std::string>();
}

std::string stable_text(const Json& value) {
    return value.dump(-1, ' ', false, Json::error_handler_t::replace);
}

// -- KV parameters

namespace {

std::optional<std::string> loose_string(const Json& object, const char* name) {
    const auto found = object.find(name);
    if (found == object.end() || !found->is_string()) return std::nullopt;
    return found->get<std::string>();
}

bool loose_bool(const Json& object, const char* name) {
    const auto found = object.find(name);
    return found != object.end() && found->is_boolean() && found->get<bool>();
}

// [[1, 2, 3]], or [1, 2, 3] from old releases.
void read_block_ids(const Json& object, std::vector<std::uint32_t>& blocks) {
    const auto found = object.find("remote_block_ids");
    if (found == object.end() || !found->is_array()) return;
    const auto take = [&](const Json& list) {
        for (const Json& block : list)
            if (block.is_number_unsigned())
                blocks.push_back(static_cast<std::uint32_t>(block.get<std::uint64_t>()));
    };
    take(*found);
    for (const Json& group : *found)
        if (group.is_array()) take(group);
}

}  // namespace

std::shared_ptr<const KvParams> read_kv_params(const Json& body) {
    const Json* object = find_member(body, "kv_transfer_params");
    if (object == nullptr) return nullptr;
    if (!object->is_object())
        refuse(invalid_body({"dict_type", "kv_transfer_params",
                             "Input should be a valid dictionary", python_input(object)}));
    auto params = std::make_shared<KvParams>();
    params->do_remote_decode = loose_bool(*object, "do_remote_decode");
    params->do_remote_prefill = loose_bool(*object, "do_remote_prefill");
    params->transfer_id = loose_string(*object, "transfer_id");
    params->remote_bootstrap_addr = loose_string(*object, "remote_bootstrap_addr");
    params->remote_engine_id = loose_string(*object, "remote_engine_id");
    params->remote_request_id = loose_string(*object, "remote_request_id");
    params->remote_host = loose_string(*object, "remote_host");
    const auto unsigned_of = [&](const char* name) -> std::optional<std::uint64_t> {
        const auto found = object->find(name);
        if (found == object->end() || !found->is_number_unsigned()) return std::nullopt;
        return found->get<std::uint64_t>();
    };
    if (const auto port = unsigned_of("remote_port"); port && *port > 0 && *port < 65536)
        params->remote_port = static_cast<std::uint16_t>(*port);
    if (const auto cached = unsigned_of("remote_prefill_cached_tokens"))
        params->remote_prefill_cached_tokens = static_cast<std::uint32_t>(*cached);
    read_block_ids(*object, params->remote_block_ids);
    if (const Json* ids = find_member(*object, "prompt_token_ids")) {
        std::vector<std::uint32_t> tokens;
        if (ids->is_array())
            for (const Json& id : *ids)
                if (id.is_number_unsigned())
                    tokens.push_back(static_cast<std::uint32_t>(id.get<std::uint64_t>()));
        if (tokens.empty() || tokens.size() != ids->size())
            refuse(
                bad_request("kv_transfer_params.prompt_token_ids must be a non-empty list of "
                            "non-negative integers.",
                            "kv_transfer_params"));
        params->prompt_token_ids = std::move(tokens);
    }
    return params;
}

// -- prompts

void PromptBuilder::add_json(const Json& value) { text_ += stable_text(value); }

void PromptBuilder::shape(const Json& body, const char* name) {
    if (const Json* value = find_member(body, name))
        shape_ += std::string(name) + "=" + stable_text(*value) + "\n";
}

Prompt PromptBuilder::finish(const Json& body, bool keep_text, bool keep_ids) {
    for (const char* name :
         {"truncate_prompt_tokens", "cache_salt", "mm_processor_kwargs", "add_special_tokens"})
        shape(body, name);
    Prompt prompt;
    if (tokens_) text_ = detokenize(*tokens_);
    prompt.hash = hash_text(shape_, hash_text(text_));
    prompt.tokens = static_cast<std::uint32_t>(tokens_ ? tokens_->size() : count_tokens(text_));
    if (const auto limit = integer_member(body, "truncate_prompt_tokens"); limit && *limit > 0)
        prompt.tokens = static_cast<std::uint32_t>(std::min<std::int64_t>(prompt.tokens, *limit));
    if (keep_ids) prompt.token_ids = tokens_ ? std::move(*tokens_) : tokenize(text_);
    if (keep_text) prompt.text = std::move(text_);
    return prompt;
}

void add_content(PromptBuilder& prompt, const Json& content) {
    if (content.is_string()) return prompt.add_text(content.get_ref<const std::string&>());
    if (!content.is_array()) return prompt.add_json(content);
    for (const Json& part : content) {
        const Json* text = part.is_object() ? find_member(part, "text") : nullptr;
        if (text != nullptr && text->is_string()) {
            prompt.add_text(text->get_ref<const std::string&>());
        } else {
            prompt.add_json(part);  // an image, a tool's result ...
        }
    }
}

void read_tools(PromptBuilder& prompt, const Json& body, const EngineOptions& options) {
    const Json* tools = find_member(body, "tools");
    const Json* choice = find_member(body, "tool_choice");
    const bool has_tools = tools != nullptr && tools->is_array() && !tools->empty();
    if (choice != nullptr && *choice == "required" && !options.tool_parser)
        refuse(bad_request("tool_choice=\"required\" requires --tool-call-parser to be set"));
    const bool automatic = has_tools && (choice == nullptr || *choice == "auto");
    if (automatic && !options.tool_parser && find_member(body, "messages") != nullptr)
        refuse(
            bad_request("\"auto\" tool choice requires --enable-auto-tool-choice and "
                        "--tool-call-parser to be set"));
    const bool none = choice != nullptr && *choice == "none";
    if (has_tools && !none) {
        prompt.add_text("<tools>");
        prompt.add_json(*tools);
        prompt.add_text("</tools>\n");
    }
    prompt.shape(body, "tool_choice");
}

}  // namespace sluice::engine
