// The relay's protocol (the head of examples/relay.c) written plainly: a goroutine for each connection, which reads lines;
// maps and the active connections under one mutex; a Write for each line.
//
//	go build -o bench/relay bench/relay.go && bench/relay -port 8000
package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"log"
	"math/rand"
	"net"
	"os"
	"strings"
	"sync"
	"syscall"
	"time"
)

const (
	maxX    = 64 << 10
	maxLine = len("message ") + 2*maxX
)

type client struct {
	net.Conn
	at   int               // its place among the active ones, or -1
	sent map[*message]bool // those whose ok it waits for
	owed map[*message]bool // those that were forwarded to it
}

// A message is there as long as somebody waits for its ok.
type message struct {
	x       string
	waiting []*client
	holders []*client // to whom it was forwarded
}

type counts struct {
	Active      int   `json:"active"`
	Outstanding int   `json:"outstanding"`
	Buffered    int   `json:"buffered"`
	Memory      int   `json:"memory"`
	CPU         int64 `json:"cpu_us"`
	Messages    int   `json:"messages"`
	Forwards    int   `json:"forwards"`
	Reforwards  int   `json:"reforwards"`
	Oks         int   `json:"oks"`
	Ignored     int   `json:"ignored"`
	Errors      int   `json:"errors"`
	Lost        int   `json:"lost"`
	Opened      int   `json:"opened"`
	Peak        int   `json:"peak"`
}

type server struct {
	reforward bool

	mu       sync.Mutex
	random   *rand.Rand
	active   []*client
	messages map[string]*message
	counts   counts
}

func (c *client) send(word, text string) {
	line := make([]byte, 0, len(word)+len(" ")+len(text)+len("\n"))
	line = append(line, word...)
	line = append(line, ' ')
	line = append(line, text...)
	line = append(line, '\n')
	c.Write(line) // if it can't, c's own goroutine reads of it
}

func without(clients []*client, c *client) []*client {
	for i := range clients {
		if clients[i] == c {
			clients[i] = clients[len(clients)-1]
			return clients[:len(clients)-1]
		}
	}
	return clients
}

func (s *server) enter(c *client) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c.at = len(s.active)
	s.active = append(s.active, c)
	s.counts.Opened++
	if len(s.active) > s.counts.Peak {
		s.counts.Peak = len(s.active)
	}
}

// leave takes c out of the active ones; mu is held.
func (s *server) leave(c *client) {
	if c.at < 0 {
		return
	}
	last := s.active[len(s.active)-1]
	s.active[c.at] = last
	last.at = c.at
	s.active[len(s.active)-1] = nil
	s.active = s.active[:len(s.active)-1]
	c.at = -1
}

// pass chooses who is to get m, or nil if nobody is there; mu is held.
func (s *server) pass(m *message) *client {
	if len(s.active) == 0 {
		s.counts.Lost++
		return nil
	}
	to := s.active[s.random.Intn(len(s.active))]
	if !to.owed[m] {
		to.owed[m] = true
		m.holders = append(m.holders, to)
	}
	s.counts.Forwards++
	return to
}

func (s *server) message(c *client, x string) {
	s.mu.Lock()
	s.counts.Messages++
	m := s.messages[x]
	if m == nil {
		m = &message{x: x}
		s.messages[x] = m
	}
	if !c.sent[m] {
		c.sent[m] = true
		m.waiting = append(m.waiting, c)
	}
	to := s.pass(m)
	s.mu.Unlock()
	if to != nil {
		to.send("message", x)
	}
}

// drop forgets m; mu is held.
func (s *server) drop(m *message) {
	delete(s.messages, m.x)
	for _, c := range m.waiting {
		delete(c.sent, m)
	}
	for _, c := range m.holders {
		delete(c.owed, m)
	}
}

func (s *server) ok(c *client, x string) {
	s.mu.Lock()
	m := s.messages[x]
	if m == nil || !c.owed[m] {
		s.counts.Ignored++
		s.mu.Unlock()
		return
	}
	s.drop(m)
	s.counts.Oks += len(m.waiting)
	s.mu.Unlock()
	for _, to := range m.waiting {
		to.send("ok", x)
	}
}

// closed forgets c: nobody waits for what only c waited for, and what it owes is passed to others.
func (s *server) closed(c *client) {
	type passed struct {
		to *client
		x  string
	}
	var again []passed
	s.mu.Lock()
	s.leave(c)
	for m := range c.sent {
		if m.waiting = without(m.waiting, c); len(m.waiting) == 0 {
			s.drop(m)
		}
	}
	for m := range c.owed {
		m.holders = without(m.holders, c)
		if !s.reforward || len(m.holders) > 0 {
			continue
		}
		if to := s.pass(m); to != nil {
			s.counts.Reforwards++
			again = append(again, passed{to, m.x})
		}
	}
	s.mu.Unlock()
	for _, p := range again {
		p.to.send("message", p.x)
	}
}

func (s *server) stats(c *client) {
	var usage syscall.Rusage
	syscall.Getrusage(syscall.RUSAGE_SELF, &usage)
	var size, resident int
	if statm, err := os.ReadFile("/proc/self/statm"); err == nil {
		fmt.Sscan(string(statm), &size, &resident)
	}
	s.mu.Lock()
	s.leave(c)
	counts := s.counts
	counts.Active, counts.Outstanding = len(s.active), len(s.messages)
	s.mu.Unlock()
	counts.Memory = resident * os.Getpagesize()
	counts.CPU = (usage.Utime.Nano() + usage.Stime.Nano()) / 1000
	text, err := json.Marshal(counts)
	if err != nil {
		log.Fatal(err)
	}
	c.send("stats", string(text))
}

func (s *server) refuse(c *client, why string) {
	s.mu.Lock()
	s.counts.Errors++
	s.mu.Unlock()
	c.send("error", why)
}

// line answers one; false if c is to be closed.
func (s *server) line(c *client, line []byte) {
	word, x, _ := strings.Cut(string(line), " ")
	switch {
	case word == "message":
		s.message(c, x)
	case word == "ok":
		s.ok(c, x)
	case word == "stats":
		s.stats(c)
	default:
		s.refuse(c, "unknown word")
	}
}

// whole splits as bufio.ScanLines does, but what has no line feed is no line.
func whole(data []byte, atEOF bool) (int, []byte, error) {
	if i := bytes.IndexByte(data, '\n'); i >= 0 {
		return i + 1, bytes.TrimSuffix(data[:i], []byte("\r")), nil
	}
	return 0, nil, nil
}

func (s *server) serve(conn net.Conn) {
	c := &client{Conn: conn, sent: make(map[*message]bool), owed: make(map[*message]bool)}
	defer conn.Close()
	s.enter(c)
	defer s.closed(c)
	lines := bufio.NewScanner(conn)
	lines.Buffer(nil, maxLine+len("\r\n"))
	lines.Split(whole)
	for lines.Scan() {
		s.line(c, lines.Bytes())
	}
	if lines.Err() == bufio.ErrTooLong {
		s.refuse(c, "line too long")
	}
}

func main() {
	port := flag.Int("port", 8000, "to listen on, 0 for any")
	plain := flag.Bool("no-reforward", false, "who owes an ok and goes leaves the sender to its time-out")
	flag.Parse()
	listener, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", *port))
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("listening on", listener.Addr())
	s := &server{
		reforward: !*plain,
		random:    rand.New(rand.NewSource(time.Now().UnixNano())),
		messages:  make(map[string]*message),
	}
	for {
		conn, err := listener.Accept()
		if err != nil {
			log.Print(err) // no descriptor is free
			time.Sleep(10 * time.Millisecond)
			continue
		}
		go s.serve(conn)
	}
}
