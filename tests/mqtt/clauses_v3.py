"""3.1.1, clause by clause: the tests that prove it, or the reason why it binds no server.

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
    ONCE,
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

CLAUSES: Final[dict[str, str | list[str]]] = {
    # ---- 1.5.3 strings ----
    "MQTT-1.5.3-1": [
        WIRE + "test_a_bad_string_is_malformed",
        WIRE + "test_a_bad_string_is_not_written",
        *bad(
            "PUBLISH to a topic with a surrogate", "PUBLISH to an overlong spelling", "PUBLISH past U+10FFFF"
        ),
        *closed("16: a topic that is a surrogate, 4", "16: a client identifier that is overlong first, 4"),
    ],
    "MQTT-1.5.3-2": [
        WIRE + "test_a_bad_string_is_malformed",
        *bad("PUBLISH to a topic with U+0000", "CONNECT with U+0000 in its client identifier"),
        *closed("16: a topic that is U+0000, 4", "16: a user name that is U+0000 first, 4"),
    ],
    "MQTT-1.5.3-3": [
        WIRE + "test_a_byte_order_mark_stays",
        PUBLISH + r"test_topics_match_level_by_level_and_byte_for_byte[\\ufeffa-4]",
    ],
    # ---- 2 the fixed header and packet identifiers ----
    "MQTT-2.2.2-1": [
        CODEC + "test_the_packet_writes_as_the_bytes",
        CODEC + "test_every_first_byte_but_the_legal_ones_is_malformed[4]",
    ],
    "MQTT-2.2.2-2": [
        CODEC + "test_every_first_byte_but_the_legal_ones_is_malformed[4]",
        *bad("CONNECT with flags", "PUBACK with flags", "PINGREQ with flags", "DISCONNECT with flags"),
    ],
    "MQTT-2.3.1-1": bad(
        "SUBSCRIBE with packet identifier 0",
        "UNSUBSCRIBE with packet identifier 0",
        "PUBLISH with packet identifier 0",
        "PUBLISH without a packet identifier",
    ),
    "MQTT-2.3.1-2": CLIENT,
    "MQTT-2.3.1-3": CLIENT,
    "MQTT-2.3.1-4": [
        SESSION + "test_an_identifier_is_never_used_twice_at_once",
        SESSION + "test_identifiers_wrap_around_and_skip_those_in_use",
        PUBLISH + "test_what_is_unanswered_is_repeated_with_dup_its_identifier_and_in_order[4]",
    ],
    "MQTT-2.3.1-5": [
        CODEC + "test_the_packet_writes_as_the_bytes",
        PUBLISH + "test_dup_of_what_came_in_does_not_go_out[False-4]",
    ],
    "MQTT-2.3.1-6": [
        PUBLISH + "test_each_qos_has_its_answer_with_the_identifier_of_the_publish[4]",
        PUBLISH + "test_a_qos_2_delivery_walks_through_its_four_packets[4]",
    ],
    "MQTT-2.3.1-7": [
        SUBSCRIBE + "test_suback_and_unsuback_carry_the_identifier_of_what_they_answer[0-4]",
        SUBSCRIBE + "test_suback_and_unsuback_carry_the_identifier_of_what_they_answer[1-4]",
    ],
    # ---- 3.1 CONNECT ----
    "MQTT-3.1.0-1": [
        CONNECTION + "test_when_new_only_connect_may_come",
        *closed("8: packet type 3 first, 5", "8: packet type 12 first, 5"),
    ],
    "MQTT-3.1.0-2": [CONNECT + "test_a_second_connect_ends_the_connection_and_gets_no_connack[4]"],
    "MQTT-3.1.2-1": [
        *bad("CONNECT with another protocol", "CONNECT in lower case"),
        CONNECT + "test_a_connect_that_cannot_be_taken_is_told_so_where_it_can_be_and_closed",
    ],
    "MQTT-3.1.2-2": [
        CONNECTION + "test_a_bad_connect_is_answered_as_well_as_its_version_can",
        CONNECT + "test_a_connect_that_cannot_be_taken_is_told_so_where_it_can_be_and_closed",
    ],
    "MQTT-3.1.2-3": [
        *bad("CONNECT with the reserved flag"),
        CONNECT + "test_a_connect_that_cannot_be_taken_is_told_so_where_it_can_be_and_closed",
    ],
    "MQTT-3.1.2-4": [
        COMING + "test_clean_start_and_session_present",
        CONNECT + "test_a_session_keeps_what_matches_while_its_device_is_away_also_through_a_restart[1-4]",
    ],
    "MQTT-3.1.2-5": [
        CONNECT + "test_a_session_keeps_what_matches_while_its_device_is_away_also_through_a_restart[1-4]",
        CONNECT + "test_a_session_keeps_what_matches_while_its_device_is_away_also_through_a_restart[2-4]",
    ],
    "MQTT-3.1.2-6": [
        CONNECT + "test_a_clean_session_leaves_nothing_to_the_next_one[4]",
        CONNECT + "test_clean_start_discards_the_session_that_is_there[4]",
    ],
    "MQTT-3.1.2.7": [
        CONNECT + "test_retained_messages_are_no_part_of_a_session_and_outlive_it[4]",
    ],
    "MQTT-3.1.2-8": [
        CONNECT + f"test_a_will_is_published_however_the_connection_ends_but_by_disconnect[{ending}-4]"
        for ending in ("lost", "protocol error", "silence", "taken over")
    ],
    "MQTT-3.1.2-9": [
        *bad("CONNECT with a will flag and no will", "CONNECT with a will topic and no payload"),
        CONNECT + "test_a_will_has_the_qos_and_the_retain_that_connect_gave_it",
    ],
    "MQTT-3.1.2-10": [
        CONNECT + "test_a_will_is_published_once_and_then_removed[False-4]",
        CONNECT + "test_a_will_is_published_once_and_then_removed[True-4]",
        CONNECT + "test_a_disconnect_removes_the_will_for_good[4]",
    ],
    "MQTT-3.1.2-11": bad(
        "CONNECT with will QoS and no will",
        "CONNECT with will retain and no will",
        "CONNECT with a will and no will flag",
    ),
    "MQTT-3.1.2-12": [CONNECT + "test_without_a_will_nothing_is_published[4]"],
    "MQTT-3.1.2-13": bad("CONNECT with will QoS and no will"),
    "MQTT-3.1.2-14": [
        *bad("CONNECT with will QoS 3"),
        CONNECT + "test_a_will_has_the_qos_and_the_retain_that_connect_gave_it",
    ],
    "MQTT-3.1.2-15": bad("CONNECT with will retain and no will"),
    "MQTT-3.1.2-16": [
        CONNECT + f"test_a_will_has_the_qos_and_the_retain_that_connect_gave_it[{qos}-False-4]"
        for qos in (0, 1, 2)
    ],
    "MQTT-3.1.2-17": [
        CONNECT + f"test_a_will_has_the_qos_and_the_retain_that_connect_gave_it[{qos}-True-4]"
        for qos in (0, 1, 2)
    ],
    "MQTT-3.1.2-18": bad("CONNECT with a user name and no flag for it"),
    "MQTT-3.1.2-19": bad("CONNECT without the user name it promises"),
    "MQTT-3.1.2-20": bad("CONNECT with a password and no flag for it"),
    "MQTT-3.1.2-21": bad("CONNECT without the password it promises"),
    "MQTT-3.1.2-22": bad("CONNECT with a password only, in 3.1.1"),
    "MQTT-3.1.2-23": CLIENT,
    "MQTT-3.1.2-24": [
        CONNECT + "test_silence_for_one_and_a_half_keep_alives_is_the_end_and_for_less_is_not[4]",
        CONNECTION + "test_one_and_a_half_times_the_keep_alive",
        CONNECT + "test_a_will_is_published_however_the_connection_ends_but_by_disconnect[silence-4]",
    ],
    "MQTT-3.1.3-1": [
        CODEC + "test_bytes_read_as_the_packet",
        CODEC + "test_the_packet_writes_as_the_bytes",
    ],
    "MQTT-3.1.3-2": [
        COMING + "test_clean_start_and_session_present",
        WAITING + "test_two_sessions_get_their_own_from_one_record",
    ],
    "MQTT-3.1.3-3": bad("CONNECT without a client identifier"),
    "MQTT-3.1.3-4": bad("CONNECT with a client identifier that is not UTF-8"),
    "MQTT-3.1.3-5": [CONNECT + "test_every_client_identifier_that_must_be_allowed_is"],
    "MQTT-3.1.3-6": [
        CONNECT + "test_without_a_client_identifier_each_device_gets_one_of_its_own_and_works[4]",
    ],
    "MQTT-3.1.3-7": CLIENT,
    "MQTT-3.1.3-8": [
        CONNECT + "test_3_1_1_without_a_client_identifier_and_with_a_session_to_keep_hears_code_2",
    ],
    "MQTT-3.1.3-9": [
        SETTINGS + "test_a_client_identifier_that_is_refused_is_said_so_and_the_connection_closed[4]",
    ],
    "MQTT-3.1.3-10": bad("CONNECT with a will topic that is not UTF-8"),
    "MQTT-3.1.3-11": bad(
        "CONNECT with a user name that is not UTF-8", "CONNECT with U+0000 in its user name"
    ),
    "MQTT-3.1.4-1": [
        CONNECT + "test_a_connect_that_cannot_be_taken_is_told_so_where_it_can_be_and_closed",
        CONNECTION + "test_a_bad_connect_is_answered_as_well_as_its_version_can",
    ],
    "MQTT-3.1.4-2": [CONNECT + "test_a_new_connection_with_the_client_identifier_ends_the_old_one[4]"],
    "MQTT-3.1.4-3": [
        COMING + "test_clean_start_and_session_present",
        CONNECT + "test_clean_start_discards_the_session_that_is_there[4]",
    ],
    "MQTT-3.1.4-4": [
        CONNECT + "test_the_first_packet_is_connack_even_where_messages_wait_and_no_other_follows[4]",
    ],
    "MQTT-3.1.4-5": [
        CONNECT + "test_what_follows_a_refused_connect_is_not_processed[4]",
        CONNECT + "test_what_follows_an_accepted_connect_need_not_wait_for_connack[4]",
        CONNECTION + "test_what_follows_a_refused_connect_is_never_read",
    ],
    # ---- 3.2 CONNACK ----
    "MQTT-3.2.0-1": [
        CONNECT + "test_the_first_packet_is_connack_even_where_messages_wait_and_no_other_follows[4]",
    ],
    "MQTT-3.2.2-1": [
        CONNECT + "test_clean_start_discards_the_session_that_is_there[4]",
        COMING + "test_clean_start_and_session_present",
    ],
    "MQTT-3.2.2-2": [COMING + "test_clean_start_and_session_present"],
    "MQTT-3.2.2-3": [
        COMING + "test_clean_start_and_session_present",
        CONNECT + "test_a_clean_session_leaves_nothing_to_the_next_one[4]",
    ],
    "MQTT-3.2.2-4": [
        CONNECT + "test_what_follows_a_refused_connect_is_not_processed[4]",
        CONNECT + "test_3_1_1_without_a_client_identifier_and_with_a_session_to_keep_hears_code_2",
    ],
    "MQTT-3.2.2-5": [
        CONNECT + "test_3_1_1_without_a_client_identifier_and_with_a_session_to_keep_hears_code_2",
        CONNECT + "test_a_connect_that_cannot_be_taken_is_told_so_where_it_can_be_and_closed",
    ],
    "MQTT-3.2.2-6": [
        CONNECTION + "test_what_mqtt_3_cannot_say_is_not_encoded",
        CONNECT + "test_a_connect_that_cannot_be_taken_is_told_so_where_it_can_be_and_closed",
        COMING + "test_no_more_connections_than_the_limit",
    ],
    # ---- 3.3 PUBLISH ----
    "MQTT-3.3.1-1": [PUBLISH + "test_what_is_unanswered_is_repeated_with_dup_its_identifier_and_in_order[4]"],
    "MQTT-3.3.1-2": [
        *bad("PUBLISH with QoS 0 and DUP"),
        PUBLISH + "test_dup_of_what_came_in_does_not_go_out[False-4]",
    ],
    "MQTT-3.3.1-3": [
        PUBLISH + "test_dup_of_what_came_in_does_not_go_out[False-4]",
        PUBLISH + "test_dup_of_what_came_in_does_not_go_out[True-4]",
    ],
    "MQTT-3.3.1-4": bad("PUBLISH with QoS 3"),
    "MQTT-3.3.1-5": [
        PUBLISH + f"test_the_last_retained_message_is_sent_with_its_qos_to_whoever_subscribes_later[{qos}-4]"
        for qos in (1, 2)
    ],
    "MQTT-3.3.1-6": [
        PUBLISH + "test_the_last_retained_message_is_sent_with_its_qos_to_whoever_subscribes_later[1-4]",
    ],
    "MQTT-3.3.1-7": [
        PUBLISH + "test_the_last_retained_message_is_sent_with_its_qos_to_whoever_subscribes_later[0-4]",
    ],
    "MQTT-3.3.1-8": [
        PUBLISH + "test_the_last_retained_message_is_sent_with_its_qos_to_whoever_subscribes_later[1-4]",
    ],
    "MQTT-3.3.1-9": [
        PUBLISH + "test_established_subscribers_get_a_retained_message_without_the_flag[4]",
    ],
    "MQTT-3.3.1-10": [
        PUBLISH + "test_an_empty_retained_message_is_sent_as_any_other_and_leaves_none_behind[4]",
    ],
    "MQTT-3.3.1-11": [
        PUBLISH + "test_an_empty_retained_message_is_sent_as_any_other_and_leaves_none_behind[4]",
    ],
    "MQTT-3.3.1-12": [
        PUBLISH + "test_a_message_without_the_flag_is_not_kept_and_touches_nothing_kept[4]",
    ],
    "MQTT-3.3.2-1": bad(
        "PUBLISH of length 0", "PUBLISH with a topic past its end", "PUBLISH to half a character"
    ),
    "MQTT-3.3.2-2": bad("PUBLISH to a + wildcard", "PUBLISH to a # wildcard"),
    "MQTT-3.3.2-3": [
        PUBLISH + "test_topics_match_level_by_level_and_byte_for_byte",
        TOPICS + "test_it_finds_what_matching_one_by_one_finds",
    ],
    "MQTT-3.3.4-1": [
        PUBLISH + "test_each_qos_has_its_answer_with_the_identifier_of_the_publish[4]",
        DURABLE + "test_no_puback_before_the_sync_has_returned",
    ],
    "MQTT-3.3.5-1": [PUBLISH + "test_overlapping_filters_deliver_with_the_highest_of_their_qos"],
    "MQTT-3.3.5-2": [SETTINGS + "test_3_1_1_is_acknowledged_as_ever_for_what_it_may_not_publish"],
    # ---- 3.6 to 3.11 ----
    "MQTT-3.6.1-1": bad("PUBREL without its flags", "PUBREL with DUP after 3.1"),
    "MQTT-3.8.1-1": bad("SUBSCRIBE without its flags"),
    "MQTT-3.8.3-1": bad("SUBSCRIBE to a filter that is not UTF-8"),
    "MQTT-3.8.3-2": [SUBSCRIBE + "test_every_kind_of_wildcard_is_taken[4]"],
    "MQTT-3.8.3-3": bad("SUBSCRIBE without a filter"),
    "MQTT-3-8.3-4": bad("SUBSCRIBE with QoS 3", "SUBSCRIBE with reserved options in 3.1.1"),
    "MQTT-3.8.4-1": [
        SUBSCRIBE + "test_suback_and_unsuback_carry_the_identifier_of_what_they_answer[0-4]",
    ],
    "MQTT-3.8.4-2": [
        SUBSCRIBE + "test_suback_and_unsuback_carry_the_identifier_of_what_they_answer[0-4]",
        SUBSCRIBE + "test_suback_and_unsuback_carry_the_identifier_of_what_they_answer[1-4]",
    ],
    "MQTT-3.8.4-3": [
        SUBSCRIBE + "test_the_same_filter_again_replaces_the_subscription_and_brings_the_retained_again[4]",
        SUBSCRIBE + "test_replacing_a_subscription_loses_nothing_of_what_flows[0-4]",
        SUBSCRIBE + "test_replacing_a_subscription_loses_nothing_of_what_flows[1-4]",
    ],
    "MQTT-3.8.4-4": [
        SUBSCRIBE + "test_many_filters_in_one_packet_do_what_as_many_packets_do_and_are_answered_once[4]",
    ],
    "MQTT-3.8.4-5": [
        SUBSCRIBE + "test_suback_has_one_answer_for_each_filter_in_their_order[0-4]",
        SUBSCRIBE + "test_suback_has_one_answer_for_each_filter_in_their_order[1-4]",
    ],
    "MQTT-3.8.4-6": [PUBLISH + "test_the_qos_of_a_delivery_is_the_smaller_of_the_two"],
    "MQTT-3.9.3-1": [
        SUBSCRIBE + "test_suback_has_one_answer_for_each_filter_in_their_order[0-4]",
        SUBSCRIBE + "test_suback_has_one_answer_for_each_filter_in_their_order[1-4]",
    ],
    "MQTT-3.9.3-2": [
        CODEC + "test_3_1_1_says_0x80_for_every_refusal_in_suback",
        SUBSCRIBE + "test_suback_has_one_answer_for_each_filter_in_their_order[0-4]",
    ],
    "MQTT-3.10.1-1": bad("UNSUBSCRIBE without its flags"),
    "MQTT-3.10.3-1": bad("UNSUBSCRIBE from a filter that is not UTF-8", "UNSUBSCRIBE from U+0000"),
    "MQTT-3.10.3-2": bad("UNSUBSCRIBE without a filter"),
    "MQTT-3.10.4-1": [SUBSCRIBE + "test_only_the_very_same_filter_is_unsubscribed"],
    "MQTT-3.10.4-2": [SUBSCRIBE + "test_only_the_very_same_filter_is_unsubscribed"],
    "MQTT-3.10.4-3": [
        SUBSCRIBE + "test_what_was_begun_before_unsubscribe_is_finished[0-4]",
        SUBSCRIBE + "test_what_was_begun_before_unsubscribe_is_finished[1-4]",
    ],
    "MQTT-3.10.4-4": [
        SUBSCRIBE + "test_suback_and_unsuback_carry_the_identifier_of_what_they_answer[0-4]",
    ],
    "MQTT-3.10.4-5": [SUBSCRIBE + "test_an_unsubscribe_for_nothing_is_answered_all_the_same[4]"],
    "MQTT-3.10.4-6": [
        SUBSCRIBE + "test_many_filters_in_one_packet_do_what_as_many_packets_do_and_are_answered_once[4]",
    ],
    # ---- 3.12, 3.14 ----
    "MQTT-3.12.4-1": [CONNECT + "test_a_pingreq_is_answered[4]"],
    "MQTT-3.14.1-1": bad("DISCONNECT with flags"),
    "MQTT-3.14.4-1": CLIENT,
    "MQTT-3.14.4-2": CLIENT,
    "MQTT-3.14.4-3": [
        CONNECT + "test_a_disconnect_removes_the_will_for_good[4]",
        COMING + "test_a_will_is_not_published_after_disconnect_and_is_after_0x04",
    ],
    # ---- 4 operational behaviour ----
    "MQTT-4.1.0-1": [
        CONNECT + "test_a_session_keeps_what_matches_while_its_device_is_away_also_through_a_restart[1-4]",
        ONCE + "test_a_repetition_after_reconnect_is_not_stored_again",
    ],
    "MQTT-4.1.0-2": [CONNECT + "test_a_session_lasts_as_long_as_its_connection_at_least[4]"],
    "MQTT-4.3.1-1": [PUBLISH + "test_dup_of_what_came_in_does_not_go_out[False-4]"],
    "MQTT-4.3.2-1": [
        SESSION + "test_an_identifier_is_never_used_twice_at_once",
        PUBLISH + "test_dup_of_what_came_in_does_not_go_out[True-4]",
        PUBLISH + "test_what_is_unanswered_is_repeated_with_dup_its_identifier_and_in_order[4]",
    ],
    "MQTT-4.3.2-2": [
        PUBLISH + "test_each_qos_has_its_answer_with_the_identifier_of_the_publish[4]",
        PUBLISH + "test_after_puback_the_same_identifier_is_a_new_message_whatever_dup_says[4]",
        DURABLE + "test_no_puback_before_the_sync_has_returned",
    ],
    "MQTT-4.3.3-1": [
        SESSION + "test_an_identifier_is_never_used_twice_at_once",
        PUBLISH + "test_a_qos_2_delivery_walks_through_its_four_packets[4]",
        PUBLISH + "test_dup_of_what_came_in_does_not_go_out[True-4]",
    ],
    "MQTT-4.3.3-2": [
        PUBLISH + "test_each_qos_has_its_answer_with_the_identifier_of_the_publish[4]",
        PUBLISH + "test_until_pubrel_a_repetition_is_answered_and_reaches_nobody_twice[4]",
        DURABLE + "test_no_pubrec_before_the_sync_has_returned",
    ],
    "MQTT-4.4.0-1": [
        PUBLISH + "test_what_is_unanswered_is_repeated_with_dup_its_identifier_and_in_order[4]",
        PUBLISH + "test_a_qos_2_delivery_walks_through_its_four_packets[4]",
    ],
    "MQTT-4.5.0-1": [
        PUBLISH + "test_every_device_that_subscribed_gets_its_own_copy[4]",
        CONNECT + "test_a_session_keeps_what_matches_while_its_device_is_away_also_through_a_restart[1-4]",
    ],
    "MQTT-4.5.0-2": CLIENT,
    "MQTT-4.6.0-1": [
        PUBLISH + "test_what_is_unanswered_is_repeated_with_dup_its_identifier_and_in_order[4]",
        SESSION + "test_what_was_not_answered_is_repeated_in_order_with_dup",
    ],
    "MQTT-4.6.0-2": [PUBLISH + "test_answers_come_in_the_order_of_what_they_answer[4]"],
    "MQTT-4.6.0-3": [PUBLISH + "test_answers_come_in_the_order_of_what_they_answer[4]"],
    "MQTT-4.6.0-4": [PUBLISH + "test_pubrels_follow_the_order_of_the_pubrecs[4]"],
    "MQTT-4.6.0-5": [PUBLISH + "test_messages_of_one_topic_keep_the_order_of_their_publisher"],
    "MQTT-4.6.0-6": [
        PUBLISH + "test_messages_of_one_topic_keep_the_order_of_their_publisher",
        WAITING + "test_what_was_published_meanwhile_arrives_in_order",
    ],
    "MQTT-4.7.1-1": bad("PUBLISH to a + wildcard", "PUBLISH to a # wildcard"),
    "MQTT-4.7.1-2": [
        *bad("SUBSCRIBE to a#", "SUBSCRIBE to #/a"),
        PUBLISH + "test_topics_match_level_by_level_and_byte_for_byte[sport/tennis/#-4]",
    ],
    "MQTT-4.7.1-3": [
        *bad("SUBSCRIBE to a+"),
        PUBLISH + "test_topics_match_level_by_level_and_byte_for_byte[sport/tennis/+-4]",
    ],
    "MQTT-4.7.2-1": [
        PUBLISH + "test_topics_match_level_by_level_and_byte_for_byte[#-4]",
        PUBLISH + "test_topics_match_level_by_level_and_byte_for_byte[+/monitor/#-4]",
        TOPICS + "test_wildcards_do_not_match_dollar_topics",
    ],
    "MQTT-4.7.3-1": bad("PUBLISH with an empty topic in 3.1.1", "SUBSCRIBE to an empty filter"),
    "MQTT-4.7.3-2": bad("PUBLISH to a topic with U+0000", "SUBSCRIBE to a filter with U+0000"),
    "MQTT-4.7.3-3": [
        PUBLISH + "test_a_topic_of_65535_bytes_is_a_topic[4]",
        WIRE + "test_a_bad_string_is_not_written",
    ],
    "MQTT-4.7.3-4": [PUBLISH + "test_topics_match_level_by_level_and_byte_for_byte"],
    "MQTT-4.8.0-1": [
        CONNECTION + "test_hostile_input_ends_an_open_connection",
        *closed(),
    ],
    "MQTT-4.8.0-2": [
        DURABLE + "test_given_a_failing_sync_then_a_3_device_is_cut_off_and_its_next_copy_is_stored_once",
    ],
    # ---- 6 WebSocket, 7 conformance ----
    "MQTT-6.0.0-1": [
        WEBSOCKET + "test_a_text_frame_after_connect_ends_it_too_and_what_came_before_it_counts[4]",
        WEBSOCKET + "test_a_frame_that_breaks_the_rules_ends_the_connection",
        WEBSOCKET + "test_the_answers_of_one_commit_are_one_frame",
    ],
    "MQTT-6.0.0-2": [
        WEBSOCKET + "test_packets_may_be_split_and_joined_anywhere_over_frames",
        WEBSOCKET + "test_frames_may_be_sliced_anywhere_over_reads",
    ],
    "MQTT-6.0.0-3": CLIENT,
    "MQTT-6.0.0-4": [WEBSOCKET + "test_the_subprotocol_that_is_offered_is_the_one_that_is_spoken"],
    "MQTT-7.0.0-1": "binds who also connects to other servers by MQTT, which the gateway does not",
    "MQTT-7.0.0-2": [
        "tests/house/test_clients.py::test_client[paho 3.1.1-each_qos_in_order]",
        "tests/house/test_clients.py::test_client[paho 3.1.1-wills]",
    ],
    "MQTT-7.1.1-1": [
        CONNECT + "test_the_first_packet_is_connack_even_where_messages_wait_and_no_other_follows[4]"
    ],
    "MQTT-7.1.2-1": CLIENT,
}
