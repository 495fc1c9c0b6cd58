module bench-go-peers

go 1.26.0
