-- A client that asks for the answer again is sent the same fields as the first time.
ALTER TABLE steps ADD COLUMN answer_fields json;
COMMENT ON COLUMN steps.answer_fields IS
    'Of a turn: the fields of the upstream''s answer around its message that are passed on unread, by the '
    'object that they belong to (choice, completion, usage). NULL if there were none, and for a call.';
COMMENT ON COLUMN usage_entries.model IS
    'The upstream''s name of the model that is charged: the one that answered where it has a price of its '
    'own or is another than was asked, else the one that was asked.';
