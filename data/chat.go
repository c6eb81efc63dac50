package data

import (
	"encoding/json"
	"errors"
)

// Message is one turn of a conversation.
type Message struct {
	Role    string `json:"role"` // system, user, assistant, tool
	Content string `json:"content"`
}

type chat struct{}

func (e *encoder) messages(f map[string]json.RawMessage) (sample, error) {
	return sample{}, errors.New("chat rows come in a moment")
}
