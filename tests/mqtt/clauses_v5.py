"""MQTT 5, clause by clause: the tests that prove it, or the reason why it binds no server.

A name without brackets stands for all cases of a test. What the words of a clause
are is in the specification; here are only its ids.
"""

from __future__ import annotations

from typing import Final

from tests.mqtt.spec import (
    CLIENT,
    CODEC,
    COMING,
    CONNECT,
    CONNECTION,
    DURABLE,
    FRAMER,
    ONCE,
    OPTIONS,
    PUBLISH,
    SESSION,
    SETTINGS,
    SUBSCRIBE,
    TOPICS,
    WAITING,
    WEBSOCKET,
    WIRE,
    bad,
    closed,
)

__all__ = ["CLAUSES"]

# The sizes of Reason String and User Properties, and when they may be sent at all.
_FITS: Final = (
    CONNECTION + "test_a_reason_string_or_user_property_that_does_not_fit_is_left_out_of_every_packet"
)
# The devices of the tests decode with the same table, so a packet with another code fails every test.
_CODES: Final = CODEC + "test_every_reason_code_of_a_packet_reads_back_and_no_other_is_taken"
_NO_AUTH: Final = CONNECT + "test_nobody_is_sent_an_authentication_he_did_not_ask_for"
_REFUSED_AUTH: Final = COMING + "test_an_authentication_method_is_refused"
_UNALTERED: Final = PUBLISH + "test_properties_of_the_application_arrive_unaltered_on_every_way"
_IDS: Final = [
    SUBSCRIBE + "test_suback_and_unsuback_carry_the_identifier_of_what_they_answer[0-5]",
    SUBSCRIBE + "test_suback_and_unsuback_carry_the_identifier_of_what_they_answer[1-5]",
]
_FIRST_BYTES: Final = CODEC + "test_every_first_byte_but_the_legal_ones_is_malformed[5]"
_WALK: Final = PUBLISH + "test_a_qos_2_delivery_walks_through_its_four_packets[5]"
_REPEATED: Final = PUBLISH + "test_what_is_unanswered_is_repeated_with_dup_its_identifier_and_in_order[5]"
_ANSWERS: Final = PUBLISH + "test_each_qos_has_its_answer_with_the_identifier_of_the_publish[5]"

CLAUSES: Final[dict[str, str | list[str]]] = {
    # ---- 1.5 values ----
    "MQTT-1.5.4-1": [
        WIRE + "test_a_bad_string_is_malformed",
        WIRE + "test_a_bad_string_is_not_written",
        *closed("16: a topic that is a surrogate, 5", "16: a user name that is overlong first, 5"),
    ],
    "MQTT-1.5.4-2": [WIRE + "test_a_bad_string_is_malformed", WIRE + "test_a_bad_string_is_not_written"],
    "MQTT-1.5.4-3": [
        WIRE + "test_a_byte_order_mark_stays",
        PUBLISH + r"test_topics_match_level_by_level_and_byte_for_byte[\\ufeffa-5]",
    ],
    "MQTT-1.5.5-1": [
        WIRE + "test_a_variable_byte_integer_reads_and_writes",
        WIRE + "test_a_longer_spelling_than_needed_is_malformed",
        WIRE + "test_a_fifth_byte_is_malformed_as_soon_as_it_is_announced",
    ],
    "MQTT-1.5.7-1": bad(
        "a user property with bad UTF-8",
        "a user property with U+0000 in its name",
        "a user property with U+0000 in its value",
    ),
    # ---- 2 ----
    "MQTT-2.1.3-1": [CODEC + "test_the_packet_writes_as_the_bytes", _FIRST_BYTES],
    "MQTT-2.2.1-2": [
        CODEC + "test_the_packet_writes_as_the_bytes",
        PUBLISH + "test_dup_of_what_came_in_does_not_go_out[False-5]",
    ],
    "MQTT-2.2.1-3": CLIENT,
    "MQTT-2.2.1-4": [
        SESSION + "test_an_identifier_is_never_used_twice_at_once",
        SESSION + "test_identifiers_wrap_around_and_skip_those_in_use",
        _REPEATED,
    ],
    "MQTT-2.2.1-5": [_ANSWERS, _WALK],
    "MQTT-2.2.1-6": _IDS,
    "MQTT-2.2.2-1": [
        CODEC + "test_the_packet_writes_as_the_bytes",
        *bad("PUBLISH without properties", "CONNECT without properties in 5"),
    ],
    # ---- 3.1 CONNECT ----
    "MQTT-3.1.0-1": [
        CONNECTION + "test_when_new_only_connect_may_come",
        *closed("8: packet type 3 first, 5", "8: packet type 15 first, 5"),
    ],
    "MQTT-3.1.0-2": [CONNECT + "test_a_second_connect_ends_the_connection_and_gets_no_connack[5]"],
    "MQTT-3.1.2-1": [
        *bad("CONNECT with another protocol", "CONNECT in lower case"),
        CONNECT + "test_a_connect_that_cannot_be_taken_is_told_so_where_it_can_be_and_closed",
    ],
    "MQTT-3.1.2-2": [
        *bad("CONNECT with level 6"),
        CONNECT + "test_a_connect_that_cannot_be_taken_is_told_so_where_it_can_be_and_closed",
    ],
    "MQTT-3.1.2-3": [
        CONNECT + "test_a_connect_that_cannot_be_taken_is_told_so_where_it_can_be_and_closed",
        CONNECTION + "test_a_bad_connect_is_answered_as_well_as_its_version_can",
    ],
    "MQTT-3.1.2-4": [
        CONNECT + "test_clean_start_discards_the_session_that_is_there[5]",
        CONNECT + "test_a_clean_session_leaves_nothing_to_the_next_one[5]",
        ONCE + "test_a_refused_identifier_of_a_clean_start_is_a_new_message",
    ],
    "MQTT-3.1.2-5": [
        COMING + "test_clean_start_and_session_present",
        CONNECT + "test_a_session_keeps_what_matches_while_its_device_is_away_also_through_a_restart[1-5]",
    ],
    "MQTT-3.1.2-6": [COMING + "test_clean_start_and_session_present"],
    "MQTT-3.1.2-7": [
        CONNECT + "test_a_will_is_published_however_the_connection_ends_but_by_disconnect[lost-5]",
        COMING + "test_a_stop_publishes_the_wills_that_are_due_and_a_start_those_that_become_so",
    ],
    "MQTT-3.1.2-8": [
        *(
            CONNECT + f"test_a_will_is_published_however_the_connection_ends_but_by_disconnect[{ending}-5]"
            for ending in ("lost", "protocol error", "silence", "taken over")
        ),
        COMING + "test_a_will_with_a_delay_waits_and_is_dropped_when_the_device_is_back_in_time",
        COMING + "test_a_will_with_a_delay_is_published_when_its_session_ends_before",
        COMING + "test_a_will_is_not_published_after_disconnect_and_is_after_0x04",
    ],
    "MQTT-3.1.2-9": [
        *bad("CONNECT with a will flag and no will", "CONNECT with a bad property in its will"),
        CONNECT + "test_a_will_keeps_its_properties_and_the_order_of_its_user_properties",
    ],
    "MQTT-3.1.2-10": [
        CONNECT + "test_a_will_is_published_once_and_then_removed[False-5]",
        CONNECT + "test_a_will_is_published_once_and_then_removed[True-5]",
        CONNECT + "test_a_disconnect_removes_the_will_for_good[5]",
    ],
    "MQTT-3.1.2-11": bad("CONNECT with will QoS and no will"),
    "MQTT-3.1.2-12": [
        *bad("CONNECT with will QoS 3"),
        CONNECT + "test_a_will_has_the_qos_and_the_retain_that_connect_gave_it",
    ],
    "MQTT-3.1.2-13": bad("CONNECT with will retain and no will"),
    "MQTT-3.1.2-14": [
        CONNECT + f"test_a_will_has_the_qos_and_the_retain_that_connect_gave_it[{qos}-False-5]"
        for qos in (0, 1, 2)
    ],
    "MQTT-3.1.2-15": [
        CONNECT + f"test_a_will_has_the_qos_and_the_retain_that_connect_gave_it[{qos}-True-5]"
        for qos in (0, 1, 2)
    ],
    "MQTT-3.1.2-16": bad("CONNECT with a user name and no flag for it"),
    "MQTT-3.1.2-17": bad("CONNECT without the user name it promises"),
    "MQTT-3.1.2-18": bad("CONNECT with a password and no flag for it"),
    "MQTT-3.1.2-19": bad("CONNECT without the password it promises"),
    "MQTT-3.1.2-20": CLIENT,
    "MQTT-3.1.2-21": CLIENT,
    "MQTT-3.1.2-22": [
        CONNECT + "test_silence_for_one_and_a_half_keep_alives_is_the_end_and_for_less_is_not[5]",
        CONNECTION + "test_one_and_a_half_times_the_keep_alive",
    ],
    "MQTT-3.1.2-23": [
        CONNECT + "test_a_session_keeps_what_matches_while_its_device_is_away_also_through_a_restart[1-5]",
        COMING + "test_a_session_ends_when_its_expiry_interval_is_over",
    ],
    "MQTT-3.1.2-24": [
        OPTIONS + "test_what_is_too_large_for_a_device_is_not_sent_and_does_not_block_the_rest",
        CONNECT + "test_a_device_that_would_not_take_even_a_connack_is_not_let_in",
        _FITS,
    ],
    "MQTT-3.1.2-25": [
        OPTIONS + "test_what_is_too_large_for_a_device_is_not_sent_and_does_not_block_the_rest",
        SESSION + "test_what_does_not_fit_the_client_is_let_go",
    ],
    "MQTT-3.1.2-26": [SETTINGS + "test_aliases_towards_a_device_keep_to_its_maximum_and_to_one_connection"],
    "MQTT-3.1.2-27": [PUBLISH + "test_a_device_that_allows_no_aliases_is_sent_none"],
    "MQTT-3.1.2-28": [
        CONNECT + "test_response_information_is_not_given_to_who_does_not_ask",
        SETTINGS + "test_response_information_is_given_to_who_asks_for_it",
    ],
    "MQTT-3.1.2-29": [
        CONNECTION + "test_without_request_problem_information_only_connack_and_disconnect_explain",
        CONNECTION + "test_a_client_that_wants_no_problem_information_gets_it_only_where_allowed",
        SETTINGS + "test_why_it_was_refused_is_told_only_to_who_wants_to_know",
    ],
    "MQTT-3.1.2-30": CLIENT,
    "MQTT-3.1.3-1": [
        CODEC + "test_bytes_read_as_the_packet",
        CODEC + "test_the_packet_writes_as_the_bytes",
    ],
    "MQTT-3.1.3-2": [
        COMING + "test_clean_start_and_session_present",
        WAITING + "test_two_sessions_get_their_own_from_one_record",
    ],
    "MQTT-3.1.3-3": bad("CONNECT without a client identifier in 5"),
    "MQTT-3.1.3-4": closed("16: a client identifier that is not UTF-8 first, 5"),
    "MQTT-3.1.3-5": [CONNECT + "test_every_client_identifier_that_must_be_allowed_is"],
    "MQTT-3.1.3-6": [
        CONNECT + "test_without_a_client_identifier_each_device_gets_one_of_its_own_and_works[5]",
    ],
    "MQTT-3.1.3-7": [
        CONNECT + "test_without_a_client_identifier_each_device_gets_one_of_its_own_and_works[5]",
        CONNECT + "test_5_without_a_client_identifier_may_keep_its_session_under_the_assigned_one",
    ],
    "MQTT-3.1.3-8": [
        SETTINGS + "test_a_client_identifier_that_is_refused_is_said_so_and_the_connection_closed[5]",
    ],
    "MQTT-3.1.3-9": [
        COMING + "test_a_will_with_a_delay_waits_and_is_dropped_when_the_device_is_back_in_time"
    ],
    "MQTT-3.1.3-10": [CONNECT + "test_a_will_keeps_its_properties_and_the_order_of_its_user_properties"],
    "MQTT-3.1.3-11": bad("CONNECT with a will topic that is not UTF-8"),
    "MQTT-3.1.3-12": bad(
        "CONNECT with a user name that is not UTF-8", "CONNECT with U+0000 in its user name"
    ),
    "MQTT-3.1.4-1": [
        CONNECT + "test_a_connect_that_cannot_be_taken_is_told_so_where_it_can_be_and_closed",
        *closed("12: the reserved connect flag first, 5", "3: bytes behind the end first, 5"),
    ],
    "MQTT-3.1.4-2": [
        "tests/faults/test_access.py::test_a_hundred_thefts_and_none_succeeds[5]",
        CONNECT + "test_what_follows_a_refused_connect_is_not_processed[5]",
    ],
    "MQTT-3.1.4-3": [
        CONNECT + "test_a_new_connection_with_the_client_identifier_ends_the_old_one[5]",
        COMING + "test_a_second_connection_takes_the_session_over_and_the_first_hears_0x8e",
    ],
    "MQTT-3.1.4-4": [
        COMING + "test_clean_start_and_session_present",
        CONNECT + "test_clean_start_discards_the_session_that_is_there[5]",
    ],
    "MQTT-3.1.4-5": [
        CONNECT + "test_the_first_packet_is_connack_even_where_messages_wait_and_no_other_follows[5]",
    ],
    "MQTT-3.1.4-6": [
        CONNECT + "test_what_follows_a_refused_connect_is_not_processed[5]",
        CONNECT + "test_what_follows_an_accepted_connect_need_not_wait_for_connack[5]",
    ],
    # ---- 3.2 CONNACK ----
    "MQTT-3.2.0-1": [
        CONNECT + "test_the_first_packet_is_connack_even_where_messages_wait_and_no_other_follows[5]",
        CONNECT + "test_a_device_that_would_not_take_even_a_connack_is_not_let_in",
    ],
    "MQTT-3.2.0-2": [
        CONNECT + "test_the_first_packet_is_connack_even_where_messages_wait_and_no_other_follows[5]",
        CONNECT + "test_a_second_connect_ends_the_connection_and_gets_no_connack[5]",
    ],
    "MQTT-3.2.2-1": [CODEC + "test_the_packet_writes_as_the_bytes", *bad("CONNACK with reserved flags")],
    "MQTT-3.2.2-2": [CONNECT + "test_clean_start_discards_the_session_that_is_there[5]"],
    "MQTT-3.2.2-3": [COMING + "test_clean_start_and_session_present"],
    "MQTT-3.2.2-4": CLIENT,
    "MQTT-3.2.2-5": CLIENT,
    "MQTT-3.2.2-6": [CONNECT + "test_what_follows_a_refused_connect_is_not_processed[5]"],
    "MQTT-3.2.2-7": [
        CONNECT + "test_what_follows_a_refused_connect_is_not_processed[5]",
        CONNECT + "test_a_connect_that_cannot_be_taken_is_told_so_where_it_can_be_and_closed",
    ],
    "MQTT-3.2.2-8": [
        CONNECTION + "test_whatever_the_reason_goodbye_says_one_that_its_packet_may_carry[False]",
        _CODES,
    ],
    "MQTT-3.2.2-9": [
        SETTINGS + "test_the_highest_qos_is_said_where_it_is_not_2_and_every_subscribe_is_accepted"
    ],
    "MQTT-3.2.2-10": [
        SETTINGS + "test_the_highest_qos_is_said_where_it_is_not_2_and_every_subscribe_is_accepted"
    ],
    "MQTT-3.2.2-11": CLIENT,
    "MQTT-3.2.2-12": [SETTINGS + "test_a_will_above_the_highest_qos_is_refused_and_never_published"],
    "MQTT-3.2.2-13": [SETTINGS + "test_where_nothing_is_retained_a_will_to_be_retained_is_refused[5]"],
    "MQTT-3.2.2-14": CLIENT,
    "MQTT-3.2.2-15": CLIENT,
    "MQTT-3.2.2-16": [
        CONNECT + "test_without_a_client_identifier_each_device_gets_one_of_its_own_and_works[5]",
    ],
    "MQTT-3.2.2-17": CLIENT,
    "MQTT-3.2.2-18": CLIENT,
    "MQTT-3.2.2-19": [_FITS],
    "MQTT-3.2.2-20": [_FITS],
    "MQTT-3.2.2-21": CLIENT,
    "MQTT-3.2.2-22": [
        CONNECT + "test_silence_for_one_and_a_half_keep_alives_is_the_end_and_for_less_is_not[5]",
    ],
    # ---- 3.3 PUBLISH ----
    "MQTT-3.3.1-1": [_REPEATED],
    "MQTT-3.3.1-2": [
        *bad("PUBLISH with QoS 0 and DUP"),
        PUBLISH + "test_dup_of_what_came_in_does_not_go_out[False-5]",
    ],
    "MQTT-3.3.1-3": [
        PUBLISH + "test_dup_of_what_came_in_does_not_go_out[False-5]",
        PUBLISH + "test_dup_of_what_came_in_does_not_go_out[True-5]",
    ],
    "MQTT-3.3.1-4": bad("PUBLISH with QoS 3 and all flags"),
    "MQTT-3.3.1-5": [
        PUBLISH + f"test_the_last_retained_message_is_sent_with_its_qos_to_whoever_subscribes_later[{qos}-5]"
        for qos in (0, 1, 2)
    ],
    "MQTT-3.3.1-6": [
        PUBLISH + "test_an_empty_retained_message_is_sent_as_any_other_and_leaves_none_behind[5]",
    ],
    "MQTT-3.3.1-7": [
        PUBLISH + "test_an_empty_retained_message_is_sent_as_any_other_and_leaves_none_behind[5]",
    ],
    "MQTT-3.3.1-8": [PUBLISH + "test_a_message_without_the_flag_is_not_kept_and_touches_nothing_kept[5]"],
    "MQTT-3.3.1-9": [SUBSCRIBE + "test_retain_handling_decides_about_retained_messages[0-True-True]"],
    "MQTT-3.3.1-10": [SUBSCRIBE + "test_retain_handling_decides_about_retained_messages[1-True-False]"],
    "MQTT-3.3.1-11": [SUBSCRIBE + "test_retain_handling_decides_about_retained_messages[2-False-False]"],
    "MQTT-3.3.1-12": [
        SUBSCRIBE + "test_retain_as_published_decides_about_the_flag[True-False]",
        SUBSCRIBE + "test_retain_as_published_decides_about_the_flag[False-False]",
    ],
    "MQTT-3.3.1-13": [
        SUBSCRIBE + "test_retain_as_published_decides_about_the_flag[True-True]",
        SUBSCRIBE + "test_retain_as_published_decides_about_the_flag[False-True]",
    ],
    "MQTT-3.3.2-1": bad("PUBLISH with an empty topic and no alias", "PUBLISH to half a character"),
    "MQTT-3.3.2-2": [
        *closed("16: a wildcard in a topic, 5", "16: a + in a topic, 5"),
        *bad("PUBLISH to a + wildcard", "PUBLISH to a # wildcard"),
    ],
    "MQTT-3.3.2-3": [
        PUBLISH + "test_topics_match_level_by_level_and_byte_for_byte",
        TOPICS + "test_it_finds_what_matching_one_by_one_finds",
    ],
    "MQTT-3.3.2-4": [_UNALTERED],
    "MQTT-3.3.2-5": [
        SESSION + "test_what_has_expired_is_settled_and_not_sent",
        WAITING
        + "test_a_message_whose_time_is_over_is_not_delivered_and_one_whose_time_is_not_says_what_is_left",
    ],
    "MQTT-3.3.2-6": [
        SESSION + "test_the_expiry_interval_tells_what_is_left",
        WAITING
        + "test_a_message_whose_time_is_over_is_not_delivered_and_one_whose_time_is_not_says_what_is_left",
    ],
    "MQTT-3.3.2-7": [
        PUBLISH + "test_every_alias_up_to_the_maximum_is_taken_and_none_is_carried_to_the_next_connection",
        SETTINGS + "test_aliases_towards_a_device_keep_to_its_maximum_and_to_one_connection",
    ],
    "MQTT-3.3.2-8": [
        *bad("topic alias 0"),
        SETTINGS + "test_aliases_towards_a_device_keep_to_its_maximum_and_to_one_connection",
    ],
    "MQTT-3.3.2-9": CLIENT,
    "MQTT-3.3.2-10": CLIENT,
    "MQTT-3.3.2-11": [SETTINGS + "test_aliases_towards_a_device_keep_to_its_maximum_and_to_one_connection"],
    "MQTT-3.3.2-12": [
        PUBLISH + "test_every_alias_up_to_the_maximum_is_taken_and_none_is_carried_to_the_next_connection",
        CONNECTION + "test_an_alias_stands_for_the_topic_it_was_last_set_to",
    ],
    "MQTT-3.3.2-13": bad("a response topic that is not UTF-8", "an empty response topic"),
    "MQTT-3.3.2-14": bad("a response topic with a wildcard"),
    "MQTT-3.3.2-15": [_UNALTERED],
    "MQTT-3.3.2-16": [_UNALTERED],
    "MQTT-3.3.2-17": [_UNALTERED],
    "MQTT-3.3.2-18": [_UNALTERED],
    "MQTT-3.3.2-19": bad("a content type that is not UTF-8"),
    "MQTT-3.3.2-20": [_UNALTERED],
    "MQTT-3.3.4-1": [_ANSWERS, DURABLE + "test_no_puback_before_the_sync_has_returned"],
    "MQTT-3.3.4-2": [PUBLISH + "test_overlapping_filters_deliver_with_the_highest_of_their_qos"],
    "MQTT-3.3.4-3": [OPTIONS + "test_overlapping_filters_make_one_delivery_with_all_identifiers"],
    "MQTT-3.3.4-4": [OPTIONS + "test_overlapping_filters_make_one_delivery_with_all_identifiers"],
    "MQTT-3.3.4-5": [
        PUBLISH + "test_copies_of_one_message_have_each_the_identifier_of_its_own_subscription",
    ],
    "MQTT-3.3.4-6": [
        CONNECTION + "test_a_bad_alias_or_a_subscription_identifier_is_refused",
        SUBSCRIBE + "test_an_identifier_comes_with_what_its_subscription_caused_and_with_nothing_else",
    ],
    "MQTT-3.3.4-7": CLIENT,
    "MQTT-3.3.4-8": CLIENT,
    "MQTT-3.3.4-9": [
        OPTIONS + "test_a_device_gets_no_more_at_once_than_its_receive_maximum",
        SESSION + "test_every_token_is_settled_once_and_the_window_is_never_exceeded",
    ],
    "MQTT-3.3.4-10": [PUBLISH + "test_a_full_window_holds_back_publish_and_nothing_else"],
    # ---- 3.4 to 3.7 PUBACK and its kin ----
    "MQTT-3.4.2-1": [
        _CODES,
        DURABLE + "test_a_message_that_nobody_wants_is_answered_0x10_without_being_stored",
        SETTINGS + "test_5_is_told_and_the_identifier_of_a_refused_qos_2_is_a_new_message_the_next_time",
    ],
    "MQTT-3.4.2-2": [_FITS],
    "MQTT-3.4.2-3": [_FITS],
    "MQTT-3.5.2-1": [
        _CODES,
        _ANSWERS,
        SETTINGS + "test_5_is_told_and_the_identifier_of_a_refused_qos_2_is_a_new_message_the_next_time",
    ],
    "MQTT-3.5.2-2": [_FITS],
    "MQTT-3.5.2-3": [_FITS],
    "MQTT-3.6.1-1": bad("PUBREL without its flags in 5"),
    "MQTT-3.6.2-1": [_CODES, ONCE + "test_an_acknowledgement_for_nothing_changes_nothing"],
    "MQTT-3.6.2-2": [_FITS],
    "MQTT-3.6.2-3": [_FITS],
    "MQTT-3.7.2-1": [
        _CODES,
        ONCE + "test_a_repetition_before_and_after_pubrec_is_answered_and_not_stored_again",
    ],
    "MQTT-3.7.2-2": [_FITS],
    "MQTT-3.7.2-3": [_FITS],
    # ---- 3.8 to 3.11 SUBSCRIBE, UNSUBSCRIBE and their answers ----
    "MQTT-3.8.1-1": bad("SUBSCRIBE without its flags in 5"),
    "MQTT-3.8.3-1": bad("SUBSCRIBE to a filter that is not UTF-8 in 5"),
    "MQTT-3.8.3-2": bad("SUBSCRIBE without a filter in 5"),
    "MQTT-3.8.3-3": [OPTIONS + "test_no_local_keeps_a_device_from_hearing_itself"],
    "MQTT-3.8.3-4": bad("SUBSCRIBE shared with no local"),
    "MQTT-3.8.3-5": bad("SUBSCRIBE with reserved options in 5"),
    "MQTT-3.8.4-1": _IDS,
    "MQTT-3.8.4-2": _IDS,
    "MQTT-3.8.4-3": [
        SUBSCRIBE + "test_the_same_filter_again_replaces_the_subscription_and_brings_the_retained_again[5]",
        SUBSCRIBE + "test_a_new_subscription_under_the_same_filter_has_the_new_options",
    ],
    "MQTT-3.8.4-4": [
        SUBSCRIBE + "test_retain_handling_decides_about_retained_messages[0-True-True]",
        SUBSCRIBE + "test_replacing_a_subscription_loses_nothing_of_what_flows[0-5]",
        SUBSCRIBE + "test_replacing_a_subscription_loses_nothing_of_what_flows[1-5]",
    ],
    "MQTT-3.8.4-5": [
        SUBSCRIBE + "test_many_filters_in_one_packet_do_what_as_many_packets_do_and_are_answered_once[5]",
    ],
    "MQTT-3.8.4-6": [SUBSCRIBE + "test_suback_has_one_answer_for_each_filter_in_their_order[0-5]"],
    "MQTT-3.8.4-7": [
        SUBSCRIBE + "test_suback_has_one_answer_for_each_filter_in_their_order[0-5]",
        OPTIONS + "test_a_subscription_too_many_is_answered_so_and_the_others_stand",
    ],
    "MQTT-3.8.4-8": [PUBLISH + "test_the_qos_of_a_delivery_is_the_smaller_of_the_two"],
    "MQTT-3.9.2-1": [_FITS],
    "MQTT-3.9.2-2": [_FITS],
    "MQTT-3.9.3-1": [
        SUBSCRIBE + "test_suback_has_one_answer_for_each_filter_in_their_order[0-5]",
        SUBSCRIBE + "test_suback_has_one_answer_for_each_filter_in_their_order[1-5]",
    ],
    "MQTT-3.9.3-2": [_CODES, SUBSCRIBE + "test_suback_has_one_answer_for_each_filter_in_their_order[0-5]"],
    "MQTT-3.10.1-1": bad("UNSUBSCRIBE without its flags"),
    "MQTT-3.10.3-1": [
        *bad("UNSUBSCRIBE from a filter that is not UTF-8"),
        WIRE + "test_a_bad_string_is_malformed",
    ],
    "MQTT-3.10.3-2": bad("UNSUBSCRIBE without a filter in 5"),
    "MQTT-3.10.4-1": [SUBSCRIBE + "test_only_the_very_same_filter_is_unsubscribed"],
    "MQTT-3.10.4-2": [SUBSCRIBE + "test_only_the_very_same_filter_is_unsubscribed"],
    "MQTT-3.10.4-3": [
        SUBSCRIBE + "test_what_was_begun_before_unsubscribe_is_finished[0-5]",
        SUBSCRIBE + "test_what_was_begun_before_unsubscribe_is_finished[1-5]",
    ],
    "MQTT-3.10.4-4": _IDS,
    "MQTT-3.10.4-5": [*_IDS, SUBSCRIBE + "test_an_unsubscribe_for_nothing_is_answered_all_the_same[5]"],
    "MQTT-3.10.4-6": [
        SUBSCRIBE + "test_many_filters_in_one_packet_do_what_as_many_packets_do_and_are_answered_once[5]",
    ],
    "MQTT-3.11.2-1": [_FITS],
    "MQTT-3.11.2-2": [_FITS],
    "MQTT-3.11.3-1": [
        OPTIONS + "test_unsubscribing_ends_it_and_says_whether_there_was_anything",
        SUBSCRIBE + "test_many_filters_in_one_packet_do_what_as_many_packets_do_and_are_answered_once[5]",
    ],
    "MQTT-3.11.3-2": [_CODES, SUBSCRIBE + "test_an_unsubscribe_for_nothing_is_answered_all_the_same[5]"],
    # ---- 3.12 to 3.15 ----
    "MQTT-3.12.4-1": [CONNECT + "test_a_pingreq_is_answered[5]"],
    "MQTT-3.14.0-1": [
        CONNECTION + "test_goodbye_before_connack_is_connack",
        CONNECTION + "test_whatever_the_reason_goodbye_says_one_that_its_packet_may_carry[False]",
    ],
    "MQTT-3.14.1-1": [
        *bad("DISCONNECT with flags in 5"),
        *closed("8: DISCONNECT with other flags, 5"),
    ],
    "MQTT-3.14.2-1": [
        _CODES,
        CONNECTION + "test_whatever_the_reason_goodbye_says_one_that_its_packet_may_carry[True]",
    ],
    "MQTT-3.14.2-2": [
        CONNECT + "test_a_disconnect_from_here_says_why_and_carries_no_session_expiry",
        CONNECTION + "test_whatever_the_reason_goodbye_says_one_that_its_packet_may_carry[True]",
    ],
    "MQTT-3.14.2-3": [
        _FITS,
        CONNECT + "test_a_goodbye_that_would_be_too_long_for_the_device_leaves_its_words_out",
    ],
    "MQTT-3.14.2-4": [_FITS],
    "MQTT-3.14.4-1": [
        CONNECT + "test_a_disconnect_from_here_says_why_and_carries_no_session_expiry",
        CONNECTION + "test_goodbye_after_connack_is_disconnect",
    ],
    "MQTT-3.14.4-2": [CONNECT + "test_a_disconnect_from_here_says_why_and_carries_no_session_expiry"],
    "MQTT-3.14.4-3": [
        CONNECT + "test_a_disconnect_removes_the_will_for_good[5]",
        COMING + "test_a_will_is_not_published_after_disconnect_and_is_after_0x04",
    ],
    "MQTT-3.15.1-1": bad("AUTH with flags"),
    "MQTT-3.15.2-1": [_NO_AUTH, _REFUSED_AUTH],
    "MQTT-3.15.2-2": [_NO_AUTH, _REFUSED_AUTH],
    "MQTT-3.15.2-3": [_NO_AUTH, _REFUSED_AUTH],
    # ---- 4.1, 4.2 ----
    "MQTT-4.1.0-1": [CONNECT + "test_a_session_lasts_as_long_as_its_connection_at_least[5]"],
    "MQTT-4.1.0-2": [COMING + "test_a_session_ends_when_its_expiry_interval_is_over"],
    "MQTT-4.2-1": [
        CONNECT + "test_the_first_packet_is_connack_even_where_messages_wait_and_no_other_follows[5]",
        FRAMER + "test_slicing_does_not_matter",
    ],
    "MQTT-4.2.0-1": [
        CONNECT + "test_the_first_packet_is_connack_even_where_messages_wait_and_no_other_follows[5]",
        FRAMER + "test_slicing_does_not_matter",
    ],
    # ---- 4.3 QoS ----
    "MQTT-4.3.1-1": [PUBLISH + "test_dup_of_what_came_in_does_not_go_out[False-5]"],
    "MQTT-4.3.2-1": [SESSION + "test_an_identifier_is_never_used_twice_at_once"],
    "MQTT-4.3.2-2": [PUBLISH + "test_dup_of_what_came_in_does_not_go_out[True-5]", _REPEATED],
    "MQTT-4.3.2-3": [_REPEATED, SESSION + "test_what_was_not_answered_is_repeated_in_order_with_dup"],
    "MQTT-4.3.2-4": [_ANSWERS, DURABLE + "test_no_puback_before_the_sync_has_returned"],
    "MQTT-4.3.2-5": [PUBLISH + "test_after_puback_the_same_identifier_is_a_new_message_whatever_dup_says[5]"],
    "MQTT-4.3.3-1": [SESSION + "test_an_identifier_is_never_used_twice_at_once"],
    "MQTT-4.3.3-2": [PUBLISH + "test_dup_of_what_came_in_does_not_go_out[True-5]", _REPEATED],
    "MQTT-4.3.3-3": [
        _REPEATED,
        ONCE + "test_towards_the_device_publish_and_pubrel_are_repeated_after_reconnect",
    ],
    "MQTT-4.3.3-4": [_WALK],
    "MQTT-4.3.3-5": [_WALK],
    "MQTT-4.3.3-6": [_WALK, SESSION + "test_after_pubrec_only_pubrel_is_repeated_in_the_order_of_pubrecs"],
    "MQTT-4.3.3-7": [
        PUBLISH + "test_an_exchange_that_was_begun_goes_on_although_its_message_has_expired",
        SESSION + "test_what_was_begun_is_repeated_even_when_it_has_expired",
    ],
    "MQTT-4.3.3-8": [_ANSWERS, DURABLE + "test_no_pubrec_before_the_sync_has_returned"],
    "MQTT-4.3.3-9": [
        SETTINGS + "test_5_is_told_and_the_identifier_of_a_refused_qos_2_is_a_new_message_the_next_time",
        SESSION + "test_after_a_refusal_the_next_copy_is_a_new_message",
    ],
    "MQTT-4.3.3-10": [
        PUBLISH + "test_until_pubrel_a_repetition_is_answered_and_reaches_nobody_twice[5]",
        ONCE + "test_a_repetition_after_reconnect_is_not_stored_again",
    ],
    "MQTT-4.3.3-11": [
        _ANSWERS,
        ONCE + "test_a_repetition_before_and_after_pubrec_is_answered_and_not_stored_again",
    ],
    "MQTT-4.3.3-12": [
        PUBLISH + "test_until_pubrel_a_repetition_is_answered_and_reaches_nobody_twice[5]",
        ONCE + "test_a_repetition_after_reconnect_is_not_stored_again",
    ],
    "MQTT-4.3.3-13": [PUBLISH + "test_an_exchange_that_was_begun_goes_on_although_its_message_has_expired"],
    "MQTT-4.4.0-1": [
        _REPEATED,
        _WALK,
        PUBLISH + "test_nothing_is_repeated_while_the_connection_stands[5]",
    ],
    "MQTT-4.4.0-2": [
        PUBLISH + "test_a_refusal_by_the_device_is_final",
        SESSION + "test_a_refusing_puback_settles",
        SESSION + "test_a_refusing_pubrec_settles",
    ],
    # ---- 4.5 to 4.7 ----
    "MQTT-4.5.0-1": [
        PUBLISH + "test_every_device_that_subscribed_gets_its_own_copy[5]",
        CONNECT + "test_a_session_keeps_what_matches_while_its_device_is_away_also_through_a_restart[1-5]",
    ],
    "MQTT-4.5.0-2": CLIENT,
    "MQTT-4.6.0-1": CLIENT,
    "MQTT-4.6.0-2": CLIENT,
    "MQTT-4.6.0-3": CLIENT,
    "MQTT-4.6.0-4": CLIENT,
    "MQTT-4.6.0-5": [
        PUBLISH + "test_messages_of_one_topic_keep_the_order_of_their_publisher",
        WAITING + "test_what_was_published_meanwhile_arrives_in_order",
        _REPEATED,
    ],
    "MQTT-4.6.0-6": [PUBLISH + "test_messages_of_one_topic_keep_the_order_of_their_publisher"],
    "MQTT-4.7.0-1": bad("PUBLISH to a + wildcard", "PUBLISH to a # wildcard"),
    "MQTT-4.7.1-1": [
        *bad("SUBSCRIBE to a#", "SUBSCRIBE to #/a", "UNSUBSCRIBE from a#"),
        PUBLISH + "test_topics_match_level_by_level_and_byte_for_byte[sport/tennis/#-5]",
    ],
    "MQTT-4.7.1-2": [
        *bad("SUBSCRIBE to a+"),
        PUBLISH + "test_topics_match_level_by_level_and_byte_for_byte[sport/tennis/+-5]",
    ],
    "MQTT-4.7.2-1": [
        PUBLISH + "test_topics_match_level_by_level_and_byte_for_byte[#-5]",
        PUBLISH + "test_topics_match_level_by_level_and_byte_for_byte[+/monitor/#-5]",
        TOPICS + "test_wildcards_do_not_match_dollar_topics",
    ],
    "MQTT-4.7.3-1": bad("PUBLISH with an empty topic and no alias", "SUBSCRIBE to an empty filter"),
    "MQTT-4.7.3-2": bad("PUBLISH to a topic with U+0000", "SUBSCRIBE to a filter with U+0000"),
    "MQTT-4.7.3-3": [
        PUBLISH + "test_a_topic_of_65535_bytes_is_a_topic[5]",
        WIRE + "test_a_bad_string_is_not_written",
    ],
    "MQTT-4.7.3-4": [PUBLISH + "test_topics_match_level_by_level_and_byte_for_byte"],
    # ---- 4.8 shared subscriptions ----
    "MQTT-4.8.2-1": [*bad("SUBSCRIBE shared without a name"), TOPICS + "test_a_bad_share_is_refused"],
    "MQTT-4.8.2-2": [
        *bad("SUBSCRIBE shared by a wildcard", "SUBSCRIBE shared without a filter"),
        TOPICS + "test_a_bad_share_is_refused",
    ],
    "MQTT-4.8.2-3": [PUBLISH + "test_each_member_of_a_group_gets_its_own_granted_qos"],
    "MQTT-4.8.2-4": [
        PUBLISH + "test_a_qos_2_message_under_way_to_a_member_is_finished_with_it_and_given_to_no_other",
    ],
    "MQTT-4.8.2-5": [
        PUBLISH + "test_a_qos_2_message_of_a_member_whose_session_ends_is_given_to_no_other",
    ],
    "MQTT-4.8.2-6": [PUBLISH + "test_what_a_member_refuses_is_given_to_no_other"],
    # ---- 4.9 flow control ----
    "MQTT-4.9.0-1": [
        OPTIONS + "test_a_device_gets_no_more_at_once_than_its_receive_maximum",
        SESSION + "test_the_window_holds_back_what_the_client_did_not_grant",
    ],
    "MQTT-4.9.0-2": [
        OPTIONS + "test_a_device_gets_no_more_at_once_than_its_receive_maximum",
        SESSION + "test_every_token_is_settled_once_and_the_window_is_never_exceeded",
    ],
    "MQTT-4.9.0-3": [PUBLISH + "test_a_full_window_holds_back_publish_and_nothing_else"],
    # ---- 4.12 enhanced authentication, which is optional, and answered by a refusal ----
    "MQTT-4.12.0-1": [_REFUSED_AUTH],
    "MQTT-4.12.0-2": [_NO_AUTH, _REFUSED_AUTH],
    "MQTT-4.12.0-3": CLIENT,
    "MQTT-4.12.0-4": [_REFUSED_AUTH],
    "MQTT-4.12.0-5": [_NO_AUTH, _REFUSED_AUTH],
    "MQTT-4.12.0-6": [_NO_AUTH],
    "MQTT-4.12.0-7": CLIENT,
    "MQTT-4.12.1-1": CLIENT,
    "MQTT-4.12.1-2": closed("8: AUTH out of the blue, 5"),
    # ---- 4.13 errors ----
    "MQTT-4.13.1-1": [
        CONNECTION + "test_hostile_input_ends_an_open_connection",
        *closed(),
    ],
    "MQTT-4.13.2-1": [
        CONNECT + "test_what_follows_a_refused_connect_is_not_processed[5]",
        CONNECT + "test_a_disconnect_from_here_says_why_and_carries_no_session_expiry",
        *closed(),
    ],
    # ---- 6 WebSocket ----
    "MQTT-6.0.0-1": [
        WEBSOCKET + "test_a_text_frame_after_connect_ends_it_too_and_what_came_before_it_counts[5]",
        WEBSOCKET + "test_a_frame_that_breaks_the_rules_ends_the_connection",
        WEBSOCKET + "test_the_answers_of_one_commit_are_one_frame",
    ],
    "MQTT-6.0.0-2": [
        WEBSOCKET + "test_packets_may_be_split_and_joined_anywhere_over_frames",
        WEBSOCKET + "test_frames_may_be_sliced_anywhere_over_reads",
    ],
    "MQTT-6.0.0-3": CLIENT,
    "MQTT-6.0.0-4": [WEBSOCKET + "test_the_subprotocol_that_is_offered_is_the_one_that_is_spoken"],
}
