package data

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/splora/splora/data/jinja"
)

// Message is one turn of a conversation.
type Message struct {
	Role    string // system, user, assistant, tool
	Content string
}

// RenderChat lays out a conversation by the model's chat template. addGenerationPrompt ends it where the assistant's
// answer begins. The result already holds the template's BOS: encode it with special = false.
func RenderChat(tok Tokenizer, messages []Message, addGenerationPrompt bool) (string, error) {
	c, err := newChat(tok)
	if err != nil {
		return "", fmt.Errorf("data: %w", err)
	}
	c.now = time.Now()
	text, _, err := c.render(turns(messages), nil, addGenerationPrompt)
	if err != nil {
		return "", fmt.Errorf("data: %w", err)
	}
	return text, nil
}

// chat is a model's chat template and what it needs to know.
type chat struct {
	tok      Tokenizer
	template *jinja.Template
	now      time.Time
	// ending is what the template writes after an assistant's content, up to the marker that ends the turn. "": it has
	// none, or hides it.
	ending string
	lead   string // what it writes between the generation prompt and the content, as a rule nothing or a space
}

// A day that never changes, for templates that ask for today's: data must not depend on when it was tokenised. It is the
// one that LLaMA 3's template falls back to.
var trainingDay = time.Date(2024, time.July, 26, 0, 0, 0, 0, time.UTC)

func newChat(tok Tokenizer) (*chat, error) {
	if tok == nil {
		return nil, errors.New("chat rows need a tokenizer")
	}
	source := tok.ChatTemplate()
	if source == "" {
		return nil, errors.New("the model has no chat template (chat_template in tokenizer_config.json, or chat_template.jinja)")
	}
	t, err := jinja.Parse(source)
	if err != nil {
		return nil, fmt.Errorf("chat template: %w", err)
	}
	c := &chat{tok: tok, template: t, now: trainingDay}
	c.probe()
	return c, nil
}

// probe renders a conversation whose answer cannot be mistaken for anything else, and sees what stands around it.
func (c *chat) probe() {
	const answer = "Qx7zAnswerZ7xq"
	talk := []Message{{"system", "Be brief"}, {"user", "Question"}, {"assistant", answer}}
	for _, messages := range [][]Message{talk[1:], talk} { // some templates want a system's turn, some refuse it
		text, _, err := c.render(turns(messages), nil, false)
		before, after, ok := strings.Cut(text, answer)
		if err != nil || !ok {
			continue
		}
		c.ending = c.marker(after)
		prompt, _, err := c.render(turns(messages[:len(messages)-1]), nil, true)
		if lead, ok := strings.CutPrefix(before, prompt); ok && err == nil {
			c.lead = lead
		}
		return
	}
}

// marker cuts what follows an answer after the marker that ends the turn: the EOS, else the first special token, else
// all but the white space at its end. Some templates go on with the next turn's header, asked or not.
func (c *chat) marker(after string) string {
	if id, ok := c.tok.EOS(); ok {
		if before, _, ok := strings.Cut(after, c.tok.Token(id)); ok {
			return before + c.tok.Token(id)
		}
	}
	for _, id := range c.tok.Encode(after, false) {
		name := c.tok.Token(id)
		if special := strings.HasPrefix(name, "<") && strings.HasSuffix(name, ">") && len(name) > 2; !special {
			continue
		}
		if before, _, ok := strings.Cut(after, name); ok {
			return before + name
		}
	}
	return strings.TrimRight(after, " \t\r\n")
}

// turns are messages as templates see them.
func turns(messages []Message) []any {
	out := make([]any, len(messages))
	for i, m := range messages {
		turn := &jinja.Dict{}
		turn.Set("role", m.Role)
		turn.Set("content", m.Content)
		out[i] = turn
	}
	return out
}

// render returns the text of a conversation and the assistant's spans if the template marks them.
func (c *chat) render(messages []any, tools any, prompt bool) (string, []jinja.Span, error) {
	vars := map[string]any{
		"messages": messages, "tools": tools, "documents": nil, "add_generation_prompt": prompt,
		"strftime_now": jinja.Func(func(args []any, kw map[string]any) (any, error) {
			if len(args) != 1 || len(kw) > 0 || !isString(args[0]) {
				return nil, errors.New("strftime_now() takes one string, the format")
			}
			return strftime(c.now, args[0].(string)), nil
		}),
	}
	for name, token := range c.tok.SpecialTokens() {
		if _, ours := vars[name]; !ours {
			vars[name] = token
		}
	}
	text, spans, err := c.template.Render(vars)
	var raised jinja.Raised
	if errors.As(err, &raised) {
		return "", nil, fmt.Errorf("the chat template refuses this conversation: %s", raised.Message)
	} else if err != nil {
		return "", nil, fmt.Errorf("chat %w", err)
	}
	return text, spans, nil
}

// strftime formats a time by the conversions of C that templates use; unknown ones stay as they are.
func strftime(t time.Time, layout string) string {
	known := map[byte]string{'Y': "2006", 'y': "06", 'm': "01", 'd': "02", 'e': "_2", 'H': "15", 'I': "03", 'M': "04", 'S': "05",
		'p': "PM", 'A': "Monday", 'a': "Mon", 'B': "January", 'b': "Jan", 'Z': "MST", 'z': "-0700", 'j': "002"}
	var b strings.Builder
	for i := 0; i < len(layout); i++ {
		if layout[i] != '%' || i+1 == len(layout) {
			b.WriteByte(layout[i])
			continue
		}
		i++
		if f, ok := known[layout[i]]; ok {
			b.WriteString(t.Format(f))
		} else if layout[i] == '%' {
			b.WriteByte('%')
		} else {
			b.WriteString(layout[i-1 : i+1])
		}
	}
	return b.String()
}

// messages is a conversation: all the assistant's turns are trained, each with what ends it.
func (e *encoder) messages(f map[string]json.RawMessage) (sample, error) {
	messages, err := conversation(f["messages"])
	if err != nil {
		return sample{}, err
	}
	var tools any
	if raw := f["tools"]; raw != nil {
		if tools, err = jinja.FromJSON(raw); err != nil {
			return sample{}, fmt.Errorf("\"tools\": %w", err)
		}
	}
	c, err := e.chat()
	if err != nil {
		return sample{}, err
	}
	text, spans, err := c.spans(messages, tools)
	if err != nil {
		return sample{}, err
	}
	return e.mark(text, spans, c.ending == "" && !c.template.MarksGeneration()), nil
}

// conversation decodes and checks messages: each an object with a role; at least one the assistant's.
func conversation(raw json.RawMessage) ([]any, error) {
	v, err := jinja.FromJSON(raw)
	if err != nil {
		return nil, fmt.Errorf("\"messages\": %w", err)
	}
	list, ok := v.([]any)
	if !ok {
		return nil, errors.New("\"messages\" must be an array of {\"role\", \"content\"}")
	}
	if len(list) == 0 {
		return nil, errors.New("empty sample: no messages")
	}
	for i, m := range list {
		d, ok := m.(*jinja.Dict)
		if !ok {
			return nil, fmt.Errorf("message %d must be an object with \"role\" and \"content\"", i)
		}
		if role, _ := d.Get("role"); !isString(role) {
			return nil, fmt.Errorf("message %d has no \"role\" that is a string", i)
		}
		content, _ := d.Get("content")
		_, calls := d.Get("tool_calls")
		if _, parts := content.([]any); !isString(content) && !parts && !calls {
			return nil, fmt.Errorf("message %d has no \"content\" that is a string", i)
		}
	}
	if !slices.ContainsFunc(list, assistants) {
		return nil, errors.New("no trained token: none of the messages is the assistant's")
	}
	return list, nil
}

func isString(v any) bool { _, ok := v.(string); return ok }

func assistants(m any) bool {
	role, _ := m.(*jinja.Dict).Get("role")
	return role == "assistant"
}

// spans renders a conversation and finds what the assistant wrote. A template that marks it with {% generation %} is
// believed. Otherwise turn i begins where the rendering of the turns before it, with the generation prompt, ends, and
// ends with the marker that ends a turn: what the model is going to see, and what it must write then.
func (c *chat) spans(messages []any, tools any) (string, []jinja.Span, error) {
	text, spans, err := c.render(messages, tools, false)
	if err != nil || c.template.MarksGeneration() {
		if err == nil && len(spans) == 0 {
			err = errors.New("no trained token: the chat template marks nothing with {% generation %}")
		}
		return text, spans, err
	}
	end := 0
	for i, m := range messages {
		if !assistants(m) {
			continue
		}
		span, err := c.turn(text, end, messages, i, tools)
		if err != nil {
			return "", nil, err
		}
		spans, end = append(spans, span), span.End
	}
	if c.ending == "" { // an EOS follows the last answer
		last := &spans[len(spans)-1]
		if last.End = len(strings.TrimRight(text[:last.End], " \t\r\n")); last.End == len(strings.TrimRight(text, " \t\r\n")) {
			text = text[:last.End]
		}
	}
	return text, spans, nil
}

// turn finds what the assistant wrote in message i, after from in the text.
func (c *chat) turn(text string, from int, messages []any, i int, tools any) (jinja.Span, error) {
	answer := content(messages[i])
	start := c.start(text, from, messages[:i], tools)
	if start < 0 { // the template lays out earlier turns differently when more follow
		start = c.seek(text, from, messages[:i], answer)
	}
	if start < 0 {
		return jinja.Span{}, fmt.Errorf("cannot tell where message %d lies in the rendered conversation: the chat template needs {%% generation %%} around the assistant's turns", i)
	}
	// All of the conversation up to this turn, rendered alone, ends where the turn does, unless the template treats its
	// last turn differently.
	if alone, _, err := c.render(messages[:i+1], tools, false); err == nil && len(alone) > start && strings.HasPrefix(text, alone) {
		end := len(alone)
		if at := strings.LastIndex(text[start:end], c.ending); at >= 0 {
			end = start + at + len(c.ending)
		}
		return jinja.Span{Start: start, End: end}, nil
	}
	skip := 0 // past the answer, in which the marker may stand as text
	if rest := strings.TrimLeft(text[start:], " \t\r\n"); strings.HasPrefix(rest, answer) {
		skip = len(text) - start - len(rest) + len(answer)
	}
	at := strings.Index(text[start+skip:], c.ending)
	if at < 0 || c.ending == "" && skip == 0 {
		return jinja.Span{}, fmt.Errorf("cannot tell where message %d ends in the rendered conversation: the chat template needs {%% generation %%} around the assistant's turns", i)
	}
	return jinja.Span{Start: start, End: start + skip + at + len(c.ending)}, nil
}

// start is where an answer to the messages begins in the text: after the longest rendering of them, with or without the
// generation prompt, that the text begins with; −1 if it begins with neither.
func (c *chat) start(text string, from int, messages []any, tools any) int {
	for _, prompt := range []bool{true, false} {
		if before, _, err := c.render(messages, tools, prompt); err == nil && len(before) >= from && strings.HasPrefix(text, before) {
			return len(before)
		}
	}
	return -1
}

// seek is where an answer to the messages begins in the text, looked for by its words after those of the turns between
// the last answer, which ends at from, and this one; −1 if they are not there.
func (c *chat) seek(text string, from int, messages []any, answer string) int {
	first := len(messages)
	for first > 0 && !assistants(messages[first-1]) {
		first--
	}
	for _, m := range messages[first:] {
		if role, _ := m.(*jinja.Dict).Get("role"); role == "system" { // may stand anywhere
			continue
		}
		if at := strings.Index(text[from:], content(m)); at >= 0 {
			from += at + len(content(m))
		}
	}
	for _, begin := range []string{c.lead + answer, answer} {
		if at := strings.Index(text[from:], begin); at >= 0 && answer != "" {
			return from + at
		}
	}
	return -1
}

// content is what a message says, without white space around it; "" if that is no string.
func content(m any) string {
	v, _ := m.(*jinja.Dict).Get("content")
	s, _ := v.(string)
	return strings.TrimSpace(s)
}

// mark tokenises a rendered conversation and trains the tokens that overlap its spans. Where the template has no marker
// that ends a turn (unended), an EOS ends an answer that is the last turn, and is trained.
func (e *encoder) mark(text string, spans []jinja.Span, unended bool) sample {
	ids := e.tok.Encode(text, false)
	bounds := make([]int, 0, 2*len(spans))
	for _, s := range spans {
		bounds = append(bounds, s.Start, s.End)
	}
	at := e.align(text, ids, bounds)
	labels := make([]int32, len(ids))
	ignore(labels)
	for i := range spans {
		first, last := at[2*i].floor, at[2*i+1].ceil
		copy(labels[first:last], ids[first:last])
	}
	ended := len(ids) > 0 && ids[len(ids)-1] == e.eos
	if unended && !ended && e.eos >= 0 && spans[len(spans)-1].End == len(text) {
		ids, labels = append(ids, e.eos), append(labels, e.eos)
	}
	if e.trainOnPrompt {
		copy(labels, ids)
	}
	return sample{ids, labels}
}

// edge is where a place in the text lies among the tokens: between tokens floor−1 and floor = ceil, or in token floor = ceil−1.
type edge struct{ floor, ceil int }

// align finds rising places of a text among its tokens. The pieces between them, tokenised alone, usually are the
// tokens of the whole; where they are not, a place is as far as the tokens of the text before it agree with them.
func (e *encoder) align(text string, ids []int32, places []int) []edge {
	out := make([]edge, len(places))
	n, from, same := 0, 0, true
	for i, p := range places {
		if same {
			piece := e.tok.Encode(text[from:p], false)
			same = n+len(piece) <= len(ids) && slices.Equal(piece, ids[n:n+len(piece)])
			n, from = n+len(piece), p
			out[i] = edge{n, n}
		}
	}
	if same && slices.Equal(e.tok.Encode(text[from:], false), ids[n:]) {
		return out
	}
	for i, p := range places {
		before := e.tok.Encode(text[:p], false)
		n := common(before, ids)
		out[i] = edge{n, n}
		if n < len(before) && n < len(ids) {
			out[i].ceil++
		}
	}
	return out
}
