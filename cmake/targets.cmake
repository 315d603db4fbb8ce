# SPDX-License-Identifier: Apache-2.0
#
# One function per kind of target. All of them take what they find in a folder, and skip a folder that has nothing.

# sluice_precompiled(<target>): with SLUICE_PCH, the headers that most files include are compiled once instead of in
# every file: a third of a sanitizer build's time. The release build does without: it proves that each file includes
# what it needs.
function(sluice_precompiled target)
    if(NOT SLUICE_PCH)
        return()
    endif()
    if(NOT TARGET precompiled)
        set(source "${CMAKE_BINARY_DIR}/precompiled.cpp")
        file(CONFIGURE OUTPUT "${source}" CONTENT "")
        add_library(precompiled OBJECT "${source}")
        target_link_libraries(precompiled PRIVATE
            sluice_flags Threads::Threads third_party_GTest third_party_nlohmann_json)
        target_precompile_headers(precompiled PRIVATE
            <algorithm> <array> <atomic> <charconv> <chrono> <deque> <expected> <functional> <list> <map> <memory>
            <optional> <set> <span> <sstream> <string> <string_view> <thread> <unordered_map> <vector>
            <gtest/gtest.h> <nlohmann/json.hpp>)
    endif()
    target_precompile_headers(${target} REUSE_FROM precompiled)
endfunction()

# sluice_library(<folder> [DEPENDS <folder>...] [THIRD_PARTY <name>...])
# src/<folder> with its subfolders, less a main.cpp, as the static library sluice_<folder>.
function(sluice_library folder)
    cmake_parse_arguments(arg "" "" "DEPENDS;THIRD_PARTY" ${ARGN})
    set(root "${PROJECT_SOURCE_DIR}/src/${folder}")
    file(GLOB_RECURSE sources CONFIGURE_DEPENDS "${root}/*.cpp")
    list(REMOVE_ITEM sources "${root}/main.cpp")
    if(sources)
        add_library(sluice_${folder} STATIC ${sources})
        sluice_precompiled(sluice_${folder})
        set(scope PUBLIC)
    else()
        add_library(sluice_${folder} INTERFACE)  # headers only, or still empty
        set(scope INTERFACE)
    endif()
    list(TRANSFORM arg_DEPENDS PREPEND sluice_)
    list(TRANSFORM arg_THIRD_PARTY PREPEND third_party_)
    target_link_libraries(sluice_${folder} ${scope} sluice_flags ${arg_DEPENDS} ${arg_THIRD_PARTY} Threads::Threads)
    set_property(GLOBAL APPEND PROPERTY sluice_folders ${folder})
endfunction()

# sluice_check_headers(): every header of src/ as a source file of its own, so that each includes what it needs.
function(sluice_check_headers)
    file(GLOB_RECURSE headers CONFIGURE_DEPENDS RELATIVE "${PROJECT_SOURCE_DIR}/src" "${PROJECT_SOURCE_DIR}/src/*.h")
    set(sources)
    foreach(header IN LISTS headers)
        set(source "${CMAKE_CURRENT_BINARY_DIR}/headers/${header}.cpp")
        file(CONFIGURE OUTPUT "${source}" CONTENT "#include \"${header}\"\n")
        list(APPEND sources "${source}")
    endforeach()
    if(sources)
        get_property(folders GLOBAL PROPERTY sluice_folders)
        list(TRANSFORM folders PREPEND sluice_)
        add_library(header_check OBJECT ${sources})
        target_link_libraries(header_check PRIVATE ${folders})
        target_compile_options(header_check PRIVATE -O0 -g0)
    else()
        add_custom_target(header_check)
    endif()
endfunction()

# A sanitizer's test runs without address space randomisation, where the machine allows that: with much of it, as some
# distributions set it, sanitizers fail to map their shadow memory now and then. gtest_discover_tests and add_test put
# a target's CROSSCOMPILING_EMULATOR before its command; the processes that a test starts inherit all of it.
set(sluice_test_launcher)
if(SLUICE_SANITIZE)
    execute_process(COMMAND setarch -R true RESULT_VARIABLE refused OUTPUT_QUIET ERROR_QUIET)
    if(NOT refused)
        set(sluice_test_launcher setarch -R)
    endif()
    list(APPEND sluice_test_launcher env
        ASAN_OPTIONS=detect_stack_use_after_return=1:strict_string_checks=1:check_initialization_order=1
        UBSAN_OPTIONS=print_stacktrace=1
        TSAN_OPTIONS=halt_on_error=1:second_deadlock_stack=1)
    find_program(SLUICE_SYMBOLIZER NAMES llvm-symbolizer-19 llvm-symbolizer)
    if(SLUICE_SYMBOLIZER)
        list(APPEND sluice_test_launcher
            ASAN_SYMBOLIZER_PATH=${SLUICE_SYMBOLIZER} TSAN_SYMBOLIZER_PATH=${SLUICE_SYMBOLIZER}
            UBSAN_SYMBOLIZER_PATH=${SLUICE_SYMBOLIZER} LSAN_SYMBOLIZER_PATH=${SLUICE_SYMBOLIZER})
    endif()
endif()

# sluice_tests(<binary> LABEL <label> FOLDER <tests/...> TIMEOUT <seconds> LIBRARIES <folder>... [SERIAL]
#              [ALSO <label> <pattern of GoogleTest's>])
# The .cpp files of a folder as one GoogleTest binary; each case is a test of ctest, with its own time limit.
function(sluice_tests binary)
    cmake_parse_arguments(arg "SERIAL" "LABEL;FOLDER;TIMEOUT" "LIBRARIES;ALSO" ${ARGN})
    file(GLOB_RECURSE sources CONFIGURE_DEPENDS "${PROJECT_SOURCE_DIR}/tests/${arg_FOLDER}/*.cpp")
    if(NOT sources)
        return()
    endif()
    list(TRANSFORM arg_LIBRARIES PREPEND sluice_)
    add_executable(${binary} ${sources})
    sluice_precompiled(${binary})
    target_link_libraries(${binary} PRIVATE test_support ${arg_LIBRARIES} third_party_GTest)
    set_target_properties(${binary} PROPERTIES CROSSCOMPILING_EMULATOR "${sluice_test_launcher}")
    if(TARGET sluice)
        target_compile_definitions(${binary} PRIVATE SLUICE_BINARY="$<TARGET_FILE:sluice>")
        add_dependencies(${binary} sluice)
    endif()
    string(REPLACE "/" "." name "${arg_FOLDER}")
    if(arg_SERIAL)
        set(serial RUN_SERIAL TRUE)
    endif()
    # Asked when ctest runs: a build that only compiles need not start the binary.
    set(how DISCOVERY_MODE PRE_TEST DISCOVERY_TIMEOUT 60 NO_PRETTY_VALUES
        TEST_PREFIX "${SLUICE_TEST_PREFIX}${name}." WORKING_DIRECTORY "${PROJECT_SOURCE_DIR}")
    if(arg_ALSO)
        # One label of two names: ctest -L takes patterns, and a list of two does not survive PRE_TEST.
        list(POP_FRONT arg_ALSO also pattern)
        gtest_discover_tests(${binary} ${how} TEST_FILTER "${pattern}"
            PROPERTIES LABELS "${arg_LABEL}+${also}" TIMEOUT ${arg_TIMEOUT} ${serial})
        list(APPEND how TEST_FILTER "-${pattern}")
    endif()
    gtest_discover_tests(${binary} ${how} PROPERTIES LABELS ${arg_LABEL} TIMEOUT ${arg_TIMEOUT} ${serial})
endfunction()

# sluice_fuzzer(<file> <folder>...): tests/fuzz/<name>_fuzz.cpp, linked with those libraries, as the test fuzz.<name>.
# It starts from the committed tests/fuzz/corpus/<name> and keeps what it finds in the build tree.
function(sluice_fuzzer source)
    get_filename_component(binary "${source}" NAME_WE)
    string(REGEX REPLACE "_fuzz$" "" name "${binary}")
    set(libraries ${ARGN})
    list(TRANSFORM libraries PREPEND sluice_)
    add_executable(${binary} "${source}")
    target_include_directories(${binary} PRIVATE "${CMAKE_CURRENT_SOURCE_DIR}")
    target_link_libraries(${binary} PRIVATE ${libraries})
    target_link_options(${binary} PRIVATE -fsanitize=fuzzer)
    set_target_properties(${binary} PROPERTIES CROSSCOMPILING_EMULATOR "${sluice_test_launcher}")
    add_dependencies(fuzzers ${binary})

    set(found "${CMAKE_BINARY_DIR}/corpus/${name}")
    set(crashes "${CMAKE_BINARY_DIR}/crashes/${name}")
    file(MAKE_DIRECTORY "${found}" "${crashes}")
    set(corpus "${found}")
    set(seeds "${CMAKE_CURRENT_SOURCE_DIR}/fuzz/corpus/${name}")
    if(IS_DIRECTORY "${seeds}")
        list(APPEND corpus "${seeds}")
    endif()
    if(EXISTS "${CMAKE_CURRENT_SOURCE_DIR}/fuzz/${name}.dict")
        list(APPEND corpus "-dict=${CMAKE_CURRENT_SOURCE_DIR}/fuzz/${name}.dict")
    endif()
    math(EXPR limit "${SLUICE_FUZZ_SECONDS} + 120")
    add_test(NAME ${SLUICE_TEST_PREFIX}${name} COMMAND ${binary} -max_total_time=${SLUICE_FUZZ_SECONDS}
        -timeout=10 -rss_limit_mb=2048 -artifact_prefix=${crashes}/ ${corpus})
    set_tests_properties(${SLUICE_TEST_PREFIX}${name} PROPERTIES LABELS fuzz TIMEOUT ${limit})
endfunction()

# sluice_programs(<folder>): every .cpp of it as a program of its own, beside the product.
function(sluice_programs folder)
    set(libraries ${ARGN})
    list(TRANSFORM libraries PREPEND sluice_)
    file(GLOB sources CONFIGURE_DEPENDS "${PROJECT_SOURCE_DIR}/${folder}/*.cpp")
    foreach(source IN LISTS sources)
        get_filename_component(name "${source}" NAME_WE)
        add_executable(${name} "${source}")
        target_link_libraries(${name} PRIVATE sluice_flags third_party_liburing ${libraries})
        set_target_properties(${name} PROPERTIES RUNTIME_OUTPUT_DIRECTORY "${CMAKE_BINARY_DIR}")
    endforeach()
endfunction()

# sluice_guard(<folder>): proxy_instructions, whose instructions perf/instructions counts. Needs valgrind's headers.
function(sluice_guard folder)
    find_path(SLUICE_VALGRIND_HEADERS valgrind/callgrind.h)
    if(NOT SLUICE_VALGRIND_HEADERS)
        message(STATUS "no valgrind/callgrind.h: no perf.instructions; scripts/setup --dev installs it")
        return()
    endif()
    file(GLOB sources CONFIGURE_DEPENDS "${PROJECT_SOURCE_DIR}/${folder}/*.cpp")
    add_executable(proxy_instructions ${sources})
    target_link_libraries(proxy_instructions PRIVATE sluice_pd)
    set_target_properties(proxy_instructions PROPERTIES RUNTIME_OUTPUT_DIRECTORY "${CMAKE_BINARY_DIR}")
endfunction()

# sluice_benchmarks(<folder>): every .cpp of it as the Google Benchmark binary micro_<name>.
function(sluice_benchmarks folder)
    file(GLOB sources CONFIGURE_DEPENDS "${PROJECT_SOURCE_DIR}/${folder}/*.cpp")
    foreach(source IN LISTS sources)
        get_filename_component(name "${source}" NAME_WE)
        add_executable(micro_${name} "${source}")
        target_link_libraries(micro_${name} PRIVATE sluice_app sluice_kv third_party_benchmark)
    endforeach()
endfunction()
